//! gRPC, as far as a bench needs it: a service that gives back each message, and a load of calls to it.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use super::h2load::{H2load, Message};
use super::http2::{Reply, whole};
use super::service::Service;

/// The length of a message in bytes.
pub(crate) const MESSAGE: u8 = 100;

const CALL: &str = "/bench.Echo/Unary";

pub(crate) fn echo() -> Result<Service> {
    Service::start(serve)
}

pub(crate) fn drive(home: &Path) -> Result<H2load> {
    // Not compressed, its length in four bytes, and the message itself.
    let mut bytes = vec![0, 0, 0, 0, MESSAGE];
    bytes.extend([b'g'; MESSAGE as usize]);
    let file = home.join("grpc-message");
    fs::write(&file, &bytes)?;
    let right = Reply { status: 200, body: bytes.clone(), grpc_status: Some("0".to_owned()) };
    Ok(H2load { path: CALL, message: Some(Message { file, bytes }), right })
}

async fn serve(stream: TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(give_back(request, respond));
    }
    Ok(())
}

async fn give_back(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let of_grpc = request.headers().get("te").is_some_and(|te| te == "trailers");
    let (body, _) = whole(&mut request.into_body()).await?;
    if !of_grpc {
        respond.send_reset(h2::Reason::PROTOCOL_ERROR);
        bail!("a call without `te: trailers`");
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut sending = respond.send_response(head, false)?;
    sending.send_data(body.into(), false)?;
    sending.send_trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]))?;
    Ok(())
}
