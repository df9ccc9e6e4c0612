//! A client of HTTP/2, and raw frames (RFC 9113 §4) for what no client would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::wait;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One connection of HTTP/2 to a gateway.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// What came behind the body.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field, if it stands there.
    pub fn field(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// A stream that is open.
#[derive(Debug)]
pub struct Stream {
    /// What is sent.
    pub sending: SendStream<Bytes>,
    /// What will be answered.
    pub answer: ResponseFuture,
}

impl Http2 {
    /// Begins HTTP/2 in cleartext, without asking (RFC 9113 §3.3).
    ///
    /// # Panics
    /// If nobody accepts.
    pub fn connect(address: SocketAddr) -> Self {
        Self::begin(async move {
            let socket = TcpStream::connect(address).await.unwrap();
            // As clients of HTTP/2 do: else a body waits for the acknowledgement of its head.
            socket.set_nodelay(true).unwrap();
            socket
        })
    }

    /// Begins HTTP/2 under TLS. Whether it is agreed on is the matter of `config`.
    ///
    /// # Panics
    /// If the handshake fails.
    pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self::begin(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            stream
        })
    }

    fn begin<S>(connect: impl Future<Output = S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (requests, connection) = runtime.block_on(async {
            let stream = connect.await;
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            (requests, tokio::spawn(connection))
        });
        Self { runtime, requests, connection }
    }

    /// Sends the head of a request; `uri` with scheme and authority.
    ///
    /// # Errors
    /// If the connection takes no more.
    ///
    /// # Panics
    /// If it is no request.
    pub fn open(&mut self, method: &str, uri: &str, fields: &[(&str, &str)], ends: bool) -> Result<Stream, h2::Error> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let requests = self.requests.clone();
        self.runtime.block_on(async move {
            let ready = tokio::time::timeout(PATIENCE, requests.ready()).await.expect("the connection takes a request");
            let (answer, sending) = ready?.send_request(request, ends)?;
            Ok(Stream { sending, answer })
        })
    }

    /// Asks for another protocol on a stream (RFC 8441), once the gateway has said that it may.
    ///
    /// # Errors
    /// If the connection takes no more.
    ///
    /// # Panics
    /// If it is no request, or the gateway never says so.
    pub fn connect_protocol(
        &mut self,
        protocol: &str,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Result<Stream, h2::Error> {
        wait::until(PATIENCE, "extended CONNECT is enabled", || self.requests.is_extended_connect_protocol_enabled());
        let mut request = Request::builder().method("CONNECT").uri(uri).extension(Protocol::from(protocol));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let requests = self.requests.clone();
        self.runtime.block_on(async move {
            let ready = tokio::time::timeout(PATIENCE, requests.ready()).await.expect("the connection takes a request");
            let (answer, sending) = ready?.send_request(request, false)?;
            Ok(Stream { sending, answer })
        })
    }

    /// The head of an answer, and its body to be read.
    ///
    /// # Errors
    /// If the stream or the connection was broken off.
    ///
    /// # Panics
    /// If nothing comes.
    pub fn head(&self, stream: Stream) -> Result<Response<RecvStream>, h2::Error> {
        self.wait(stream.answer)
    }

    /// The next interim answer (1xx) of a stream; none where the final one comes first.
    ///
    /// # Panics
    /// If nothing comes, or the stream was broken off.
    pub fn interim(&self, stream: &mut Stream) -> Option<Response<()>> {
        self.wait(std::future::poll_fn(|cx| stream.answer.poll_informational(cx))).map(|interim| interim.unwrap())
    }

    /// Waits for something of this connection.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("something comes in time") })
    }

    /// The whole answer of a stream.
    ///
    /// # Errors
    /// If the stream or the connection was broken off.
    pub fn answer(&self, stream: Stream) -> Result<Answer, h2::Error> {
        self.wait(whole(stream.answer))
    }

    /// Sends a whole request and reads the whole answer.
    ///
    /// # Errors
    /// If the stream or the connection was broken off.
    pub fn ask(&mut self, method: &str, uri: &str, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer, h2::Error> {
        let stream = self.open(method, uri, fields, body.is_empty())?;
        if body.is_empty() {
            return self.answer(stream);
        }
        let Stream { mut sending, answer } = stream;
        let body = Bytes::copy_from_slice(body);
        self.wait(async move {
            let sent = async {
                send(&mut sending, body).await?;
                sending.send_data(Bytes::new(), true)
            };
            // An answer may come before all is sent.
            let (_sent, answer) = tokio::join!(sent, whole(answer));
            answer
        })
    }

    /// Sends all requests at once and gives the answers in their order.
    pub fn ask_all(&mut self, requests: &[(String, Vec<(&str, String)>)]) -> Vec<Result<Answer, h2::Error>> {
        let opened: Vec<_> = requests
            .iter()
            .map(|(uri, fields)| {
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.open("GET", uri, &fields, true)
            })
            .collect();
        opened.into_iter().map(|stream| self.answer(stream?)).collect()
    }

    /// How the connection ends.
    ///
    /// # Errors
    /// As the other side says (GOAWAY).
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(self) -> Result<(), h2::Error> {
        let Self { runtime, requests, connection } = self;
        drop(requests);
        let end = runtime.block_on(async { tokio::time::timeout(PATIENCE, connection).await });
        end.expect("the connection ends").expect("no panic")
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.connection.is_finished()
    }
}

/// Sends as the window allows.
///
/// # Errors
/// If the stream was broken off.
pub async fn send(sending: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        sending.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await;
        // None: the stream is over, and takes no more.
        let room = room.unwrap_or_else(|| Err(h2::Reason::STREAM_CLOSED.into()))?.min(data.len());
        sending.send_data(data.split_to(room), false)?;
    }
    Ok(())
}

async fn whole(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// A frame.
///
/// # Panics
/// If the payload is longer than a frame can be.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as HPACK literals without indexing (RFC 7541 §6.2.2).
pub fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        hpack_text(&mut out, name);
        hpack_text(&mut out, value);
    }
    out
}

/// A text without Huffman coding (RFC 7541 §5.1, §5.2).
fn hpack_text(out: &mut Vec<u8>, text: &str) {
    let mut left = text.len();
    if left < 127 {
        out.push(left as u8);
    } else {
        out.push(127);
        left -= 127;
        while left >= 128 {
            out.push((left % 128 + 128) as u8);
            left /= 128;
        }
        out.push(left as u8);
    }
    out.extend_from_slice(text.as_bytes());
}
