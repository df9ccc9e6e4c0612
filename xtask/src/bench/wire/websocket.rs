//! WebSocket, as far as a bench needs it (RFC 6455): a service that gives back each message, and a load of messages.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::service::Service;
use super::tls::NAME;
use crate::bench::load::{Drive, Load};
use crate::bench::race::Course;

/// The length of a message in bytes; one byte tells it as long as it is below 126.
pub(crate) const MESSAGE: u8 = 100;

/// A key and what it is answered by: the example of the RFC.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The first byte of a whole text, of a Close, and the bit of the second that tells of a mask.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

const MASK: [u8; 4] = [7, 1, 9, 4];

/// How long one echo may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Open connections that each send a message and wait until it is back.
#[derive(Debug)]
pub(crate) struct WebSockets;

impl Drive for WebSockets {
    /// Every echo is looked at in any case.
    fn run(&self, port: u16, course: Course, _look: bool) -> Result<Load> {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut open = Vec::new();
            for _ in 0..course.connections {
                open.push(shake(port).await?);
            }
            let start = Instant::now();
            let end = start + Duration::from_secs(u64::from(course.seconds));
            let lanes: Vec<_> = open.into_iter().map(|stream| tokio::spawn(lane(stream, end))).collect();
            let mut latencies = Vec::new();
            for lane in lanes {
                latencies.extend(lane.await??);
            }
            Ok(Load::of(latencies, start.elapsed()))
        })
    }

    fn check(&self, port: u16) -> Result<()> {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            // In the past: one message alone.
            let sent = lane(shake(port).await?, Instant::now()).await?.len();
            ensure!(sent == 1, "{sent} messages");
            Ok(())
        })
    }
}

pub(crate) fn echo() -> Result<Service> {
    Service::start(serve)
}

/// Sends messages one after the other, the first in any case, and closes then.
async fn lane(mut stream: TcpStream, end: Instant) -> Result<Vec<Duration>> {
    let payload = [b'w'; MESSAGE as usize];
    let mut message = vec![TEXT, MASKED | MESSAGE];
    message.extend(MASK);
    message.extend(masked(&payload));
    let mut right = vec![TEXT, MESSAGE];
    right.extend(payload);
    let mut echo = vec![0; right.len()];
    let mut latencies = Vec::new();
    loop {
        let start = Instant::now();
        stream.write_all(&message).await?;
        timeout(PATIENCE, stream.read_exact(&mut echo)).await.context("no echo came")??;
        ensure!(echo == right, "another message came back");
        latencies.push(start.elapsed());
        if Instant::now() >= end {
            break;
        }
    }
    stream.write_all(&[[CLOSE, MASKED].as_slice(), &MASK].concat()).await?;
    let mut closed = [0; 2];
    timeout(PATIENCE, stream.read_exact(&mut closed)).await.context("no Close came")??;
    ensure!(closed == [CLOSE, 0], "something else than a Close came");
    Ok(latencies)
}

async fn shake(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let fields = format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n");
    let request =
        format!("GET /ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let head = timeout(PATIENCE, head(&mut stream)).await.context("no answer to the handshake")??;
    ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "the handshake was answered by:\n{head}");
    Ok(stream)
}

/// Switches, and gives back each message until a Close has come.
async fn serve(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let request = head(&mut stream).await?;
    ensure!(request.contains(KEY), "no key");
    let fields = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n");
    stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes()).await?;
    let mut frame = [0; 2 + MASK.len()];
    let mut payload = Vec::new();
    let mut answer = Vec::new();
    loop {
        stream.read_exact(&mut frame).await?;
        let [first, length, mask @ ..] = frame;
        let length = length & !MASKED;
        if length >= 126 || mask != MASK {
            bail!("a frame that the load does not send");
        }
        payload.resize(usize::from(length), 0);
        stream.read_exact(&mut payload).await?;
        answer.clear();
        answer.extend([first, length]);
        answer.extend(masked(&payload));
        stream.write_all(&answer).await?;
        if first == CLOSE {
            return Ok(());
        }
    }
}

/// With the mask, or again without it.
fn masked(payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask)
}

/// Reads a head to its end and nothing behind it.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}
