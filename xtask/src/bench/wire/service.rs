//! Services of our own, for what the service of the other rows cannot: they run beside the load, in this very program.

use std::future::Future;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// A service on loopback. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    _runtime: Runtime,
}

impl Service {
    pub(crate) fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr()?.port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is seen by the load.
                if stream.set_nodelay(true).is_ok() {
                    tokio::spawn(serve(stream));
                }
            }
        });
        Ok(Self { port, _runtime: runtime })
    }
}
