//! A client of HTTP/2 that looks at each answer closely, trailers among it, as h2load cannot.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::tls::NAME;

/// What counts of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// As it stands in the trailers.
    pub(crate) grpc_status: Option<String>,
}

/// Asks so many times on one connection, by a call of gRPC where there is a message, and wants this reply each time.
pub(crate) fn ask(port: u16, path: &str, message: Option<&[u8]>, times: u32, right: &Reply) -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let (mut requests, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        for number in 1..=times {
            let reply = one(&mut requests, path, message).await.with_context(|| format!("request {number}"))?;
            if reply != *right {
                let Reply { status, body, grpc_status } = reply;
                bail!("reply {number} is {status} with {} bytes and {grpc_status:?}", body.len());
            }
        }
        drop(requests);
        connection.await?.context("the end of the connection")
    })
}

async fn one(requests: &mut SendRequest<Bytes>, path: &str, message: Option<&[u8]>) -> Result<Reply> {
    let mut request = Request::builder().uri(format!("http://{NAME}{path}"));
    if message.is_some() {
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        request =
            fields.iter().fold(request.method(Method::POST), |request, (name, value)| request.header(*name, *value));
    }
    std::future::poll_fn(|cx| requests.poll_ready(cx)).await?;
    let (answer, mut sending) = requests.send_request(request.body(())?, message.is_none())?;
    if let Some(message) = message {
        sending.send_data(Bytes::copy_from_slice(message), true)?;
    }
    let (head, mut stream) = answer.await?.into_parts();
    let (body, trailers) = whole(&mut stream).await?;
    let grpc_status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned);
    Ok(Reply { status: head.status.as_u16(), body, grpc_status })
}

/// The rest of a message: its body and its trailers.
pub(crate) async fn whole(stream: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap)> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?.unwrap_or_default()))
}
