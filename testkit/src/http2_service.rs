//! A service that speaks HTTP/2 alone, in cleartext by prior knowledge, and answers by script.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::http2::send;

/// A service on loopback. It ends when it is dropped.
#[derive(Debug)]
pub struct Http2Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    going: watch::Sender<u32>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
    most: AtomicUsize,
    under_way: AtomicUsize,
    heads: Mutex<Vec<Head>>,
}

/// The head of a request as the service saw it.
#[derive(Debug, Clone)]
pub struct Head {
    /// Method and whole target.
    pub start: String,
    /// Its fields.
    pub headers: HeaderMap,
}

/// One request that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// Which stream of the service this is, from 0.
    pub number: usize,
    /// The request.
    pub request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

type Script = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Http2Service {
    /// A service with the usual settings.
    pub fn start<F>(script: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(|_| {}, script)
    }

    /// A service whose connections are `set` as a test wants them.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn with<F>(set: impl Fn(&mut Builder), script: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let mut builder = Builder::new();
        set(&mut builder);
        let script: Script = Arc::new(move |call| Box::pin(script(call)));
        let (going, gone) = watch::channel(0);
        let shared = Arc::new(Shared::default());
        let of_task = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let serving = serve(stream, builder.clone(), Arc::clone(&script), Arc::clone(&of_task), gone.clone());
                tokio::spawn(serving);
            }
        });
        Self { address, shared, going, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.streams.load(SeqCst)
    }

    /// How many requests were under way at once, at the most.
    pub fn most(&self) -> usize {
        self.shared.most.load(SeqCst)
    }

    /// The heads of the requests, in order.
    ///
    /// # Panics
    /// If a script panicked.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Tells all connections of now to end (GOAWAY): what is under way is still answered.
    pub fn go_away(&self) {
        self.going.send_modify(|times| *times += 1);
    }
}

async fn serve(
    stream: TcpStream,
    builder: Builder,
    script: Script,
    shared: Arc<Shared>,
    mut going: watch::Receiver<u32>,
) {
    shared.connections.fetch_add(1, SeqCst);
    shared.open.fetch_add(1, SeqCst);
    going.mark_unchanged();
    if let Ok(mut connection) = builder.handshake(stream).await {
        let mut leaves = false;
        loop {
            let next = tokio::select! {
                next = connection.accept() => next,
                _ = going.changed(), if !leaves => {
                    leaves = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = next else { break };
            let number = shared.streams.fetch_add(1, SeqCst);
            let head =
                Head { start: format!("{} {}", request.method(), request.uri()), headers: request.headers().clone() };
            shared.heads.lock().unwrap().push(head);
            let under_way = shared.under_way.fetch_add(1, SeqCst) + 1;
            shared.most.fetch_max(under_way, SeqCst);
            let (playing, shared) = (script(Call { number, request, respond }), Arc::clone(&shared));
            tokio::spawn(async move {
                playing.await;
                shared.under_way.fetch_sub(1, SeqCst);
            });
        }
    }
    shared.open.fetch_sub(1, SeqCst);
}

impl Call {
    /// The path that was asked for.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// The whole body and its trailers.
    ///
    /// # Errors
    /// If it is broken off.
    pub async fn body(&mut self) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
        let stream = self.request.body_mut();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data?;
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        Ok((body, stream.trailers().await?.unwrap_or_default()))
    }

    /// Sends a whole answer. What fails, fails because the other side is gone.
    ///
    /// # Panics
    /// If it is no answer.
    pub async fn answer(mut self, status: u16, fields: &[(&str, &str)], body: &[u8], trailers: &[(&str, &str)]) {
        let ends = body.is_empty() && trailers.is_empty();
        let Ok(mut stream) = self.respond.send_response(head(status, fields), ends) else { return };
        if ends || send(&mut stream, Bytes::copy_from_slice(body)).await.is_err() {
            return;
        }
        if trailers.is_empty() {
            let _ = stream.send_data(Bytes::new(), true);
        } else {
            let _ = stream.send_trailers(head(200, trailers).headers().clone());
        }
    }

    /// Sends an interim answer.
    ///
    /// # Panics
    /// If it is none.
    pub fn interim(&mut self, status: u16, fields: &[(&str, &str)]) {
        self.respond.send_informational(head(status, fields)).unwrap();
    }

    /// Sends the head of an answer, and gives the stream for what follows.
    ///
    /// # Panics
    /// If it is none, or nobody is there.
    pub fn begin(&mut self, status: u16, fields: &[(&str, &str)]) -> h2::SendStream<Bytes> {
        self.respond.send_response(head(status, fields), false).unwrap()
    }

    /// Breaks the stream off.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Is silent for a while.
    pub async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Waits until the other side breaks the stream off, before an answer has begun.
    pub async fn cancelled(&mut self) -> Option<Reason> {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.ok()
    }
}

/// Waits until the other side breaks off a stream whose answer has begun.
pub async fn broken_off(stream: &mut h2::SendStream<Bytes>) -> Option<Reason> {
    poll_fn(|cx| stream.poll_reset(cx)).await.ok()
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}
