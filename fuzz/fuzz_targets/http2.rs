//! Any frames of HTTP/2 from a client, in pieces and with pauses: the gateway's server never panics or hangs, writes whole
//! frames that belong to streams, ends every connection in time, and leaves nothing running behind it.
//!
//! The bytes go through a real listener into the code that serves clients, on a clock that stands still while anybody has
//! something to do. The first byte says whether the rest are raw bytes of the wire, or a script by which frames with true
//! lengths are made, so that most inputs get past the first of them.

#![no_main]

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pylon_core::body::Body;
use pylon_core::connection::Connection;
use pylon_core::networks::PeerSet;
use pylon_core::{Request, Response};
use pylon_net::accept::{Front, Greeting, Speaks, accept};
use pylon_net::caps::Caps;
use pylon_net::client_side::ClientSide;
use pylon_net::door::Door;
use pylon_net::drain::Drain;
use pylon_net::handler::{Handler, Incoming, Tunnel};
use pylon_net::limits::{InForce, Limits, Told};
use pylon_net::listen::Listener;
use pylon_net::pace::Pace;
use pylon_net::terms::Desk;
use pylon_net::tls::server::Security;
use pylon_observe::metrics::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's header.
const HEADER: usize = 9;
/// The longest frame that may be sent to a client that has not asked for longer ones (RFC 9113 §6.5.2).
const LONGEST: usize = 16_384;
/// So many turns without a byte mean that all are waiting for the clock.
const QUIET: u32 = 12;
/// So many steps of three seconds are enough for every deadline below to pass several times.
const PATIENCE: u32 = 100;

thread_local! {
    static GATE: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

/// A listener that accepts for as long as the target runs.
struct Gate {
    runtime: Runtime,
    path: PathBuf,
    drain: Arc<Drain>,
    _folder: tempfile::TempDir,
}

fuzz_target!(|bytes: &[u8]| {
    GATE.with_borrow_mut(|gate| {
        let Gate { runtime, path, drain, .. } = gate.get_or_insert_with(Gate::open);
        let written = runtime.block_on(converse(path, &script(bytes)));
        check(&written);
        runtime.block_on(async {
            sleep(Duration::from_secs(120)).await;
            settle().await;
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            assert_eq!((drain.open(), tasks), (0, 1), "connections are open, or tasks run beside the listener's");
        });
    });
});

impl Gate {
    fn open() -> Self {
        // The turns of a runtime in which nobody sleeps are what the client counts: each of them looks at the sockets.
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).event_interval(1).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let front = Front {
            greeting: Greeting::default(),
            security: Security::Cleartext,
            speaks: Speaks::Http { http2: true },
        };
        let second = Duration::from_secs(1);
        let limits = Limits {
            head: 16 << 10,
            head_time: 5 * second,
            handshake: 5 * second,
            idle: 10 * second,
            body: Pace { pause: 5 * second, rate: None },
            write_time: 5 * second,
        };
        let caps = Arc::new(Caps::new(1000, None, PeerSet::default()));
        let drain = Arc::new(Drain::new(caps, Arc::new(InForce::new(limits))));
        let metrics = Arc::new(Metrics::new(Instant::now()));
        let door = Arc::new(Door::default());
        runtime.spawn(accept(
            Listener::Unix(listener),
            door,
            Arc::new(Desk::new(front)),
            Arc::new(Service),
            Arc::clone(&drain),
            metrics,
        ));
        Self { runtime, path, drain, _folder: folder }
    }
}

/// What the client does.
enum Deed {
    Send(Vec<u8>),
    /// Waits until nobody has anything to do, and then so long.
    Pause(Duration),
    /// Ends its side.
    End,
}

/// Bytes of the wire, or frames by a script: kind, flags, stream and length, each a byte, and a payload.
fn script(bytes: &[u8]) -> Vec<Deed> {
    let Some((first, mut rest)) = bytes.split_first() else { return Vec::new() };
    let mut deeds = vec![Deed::Send([PREFACE, &frame(4, 0, 0, &[])].concat())];
    if *first & 1 == 0 {
        deeds.push(Deed::Send(rest.to_vec()));
    } else {
        while let [kind, flags, stream, length, more @ ..] = rest {
            let (payload, more) = more.split_at(usize::from(*length).min(more.len()));
            rest = more;
            // Streams of a client have odd numbers, and most inputs should have them.
            let stream = u32::from(*stream) & 0x1F;
            deeds.push(match kind & 0x1F {
                kind @ 0..=10 => Deed::Send(frame(kind, *flags, stream, payload)),
                canned @ 11..=24 => Deed::Send(usual(canned - 11, stream | 1, payload)),
                25..=28 => Deed::Pause(Duration::from_millis(u64::from(*flags) * 20)),
                29 => Deed::Send(vec![0, 0, *length, *kind, *flags]),
                30 => Deed::Send(payload.to_vec()),
                _ => Deed::End,
            });
        }
    }
    if *first & 2 != 0 {
        deeds.push(Deed::End);
    }
    deeds
}

/// Frames that a client would send, which chance alone hardly finds.
fn usual(which: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    // Indexed fields of the static table (RFC 7541, appendix A); the authority and what else is not there, literally.
    const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
    const LARGE: &[u8] = b"\x82\x86\x04\x06/large\x41\x01a";
    const POST: &[u8] = b"\x83\x86\x84\x41\x01a";
    const CONNECT: &[u8] = b"\x02\x07CONNECT\x86\x84\x41\x01a\x00\x09:protocol\x09websocket";
    match which {
        0 => frame(1, 5, stream, GET),
        1 => frame(1, 5, stream, LARGE),
        2 => frame(1, 4, stream, POST),
        3 => frame(1, 4, stream, CONNECT),
        4 => [frame(1, 4, stream, POST), frame(0, 1, stream, payload)].concat(),
        5 => [frame(1, 0, stream, GET), frame(9, 4, stream, payload)].concat(),
        6 => frame(0, 1, stream, payload),
        7 => [frame(1, 5, stream, GET), frame(3, 0, stream, &[0, 0, 0, 8])].concat(),
        8 => [frame(1, 5, stream, GET), frame(8, 0, stream, &[0, 0, 0, 0])].concat(),
        9 => [frame(8, 0, 0, &[0, 15, 0, 0]), frame(8, 0, stream, &[0, 15, 0, 0])].concat(),
        // SETTINGS with windows of the payload's size: of none, mostly.
        10 => frame(4, 0, 0, &[0, 4, 0, 0, 0, payload.len() as u8]),
        // Trailers.
        11 => frame(1, 5, stream, &[b"\x00\x01t\x01", payload.get(..1).unwrap_or(b"x")].concat()),
        12 => [GET, payload].concat().chunks(3).enumerate().fold(Vec::new(), |mut all, (at, piece)| {
            all.extend(frame(if at == 0 { 1 } else { 9 }, 0, stream, piece));
            all
        }),
        _ => frame(0, 0, stream, &payload.repeat(60)),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// Plays the client, who always takes what is sent. Answers with all that the gateway wrote until it ended.
async fn converse(path: &PathBuf, deeds: &[Deed]) -> Vec<u8> {
    let mut client = UnixStream::connect(path).await.unwrap();
    let mut written = Vec::new();
    for deed in deeds {
        match deed {
            Deed::Send(bytes) => {
                let mut left = &bytes[..];
                while !left.is_empty() {
                    match client.try_write(left) {
                        Ok(n) => left = &left[n..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                    if quiet(&client, &mut written).await {
                        return written;
                    }
                }
            }
            Deed::Pause(span) => {
                if quiet(&client, &mut written).await {
                    return written;
                }
                sleep(*span).await;
            }
            Deed::End => drop(client.shutdown().await),
        }
    }
    for _ in 0..PATIENCE {
        if quiet(&client, &mut written).await {
            return written;
        }
        sleep(Duration::from_secs(3)).await;
    }
    panic!("the gateway does not end the connection");
}

/// Takes all that comes until nobody has anything to do; answers whether that was the end.
async fn quiet(client: &UnixStream, written: &mut Vec<u8>) -> bool {
    let (mut turns, mut piece) = (0, [0; 16 << 10]);
    while turns < QUIET {
        match client.try_read(&mut piece) {
            Ok(0) => return true,
            Ok(n) => {
                written.extend_from_slice(&piece[..n]);
                turns = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => turns += 1,
            // It has closed with some of ours unread.
            Err(_) => return true,
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn settle() {
    for _ in 0..QUIET {
        tokio::task::yield_now().await;
    }
}

/// Whole frames, of which none comes on a stream that is over or has not begun.
fn check(mut written: &[u8]) {
    // By stream: whether its answer has begun, and whether it is over.
    let mut streams = std::collections::BTreeMap::<u32, (bool, bool)>::new();
    let mut first = true;
    while !written.is_empty() {
        let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = written else { panic!("a part of a header: {written:?}") };
        let (length, stream) = (u32::from_be_bytes([0, *a, *b, *c]) as usize, u32::from_be_bytes([*s, *t, *u, *v]));
        assert!(length <= LONGEST, "a frame of {length} bytes");
        assert!(length <= rest.len(), "a part of a frame: {:?}", &written[..HEADER]);
        assert_eq!(first, first && *kind == 4, "SETTINGS come first");
        first = false;
        written = &rest[length..];
        if stream == 0 {
            assert!(matches!(kind, 4 | 6 | 7 | 8), "a frame of kind {kind} on the connection");
            continue;
        }
        let (begun, over) = streams.entry(stream).or_default();
        match kind {
            0 => assert!(*begun && !*over, "DATA on stream {stream}"),
            1 => {
                assert!(!*over, "HEADERS on stream {stream}");
                *begun = true;
            }
            9 => assert!(*begun, "CONTINUATION on stream {stream}"),
            3 | 8 => {}
            kind => panic!("a frame of kind {kind} on stream {stream}"),
        }
        *over |= *kind == 3 || (*kind <= 1 && flags & 1 != 0);
    }
}

/// Gives back what it gets, and a longer answer where it is asked for.
struct Service;

impl Handler for Service {
    type Body = Body;
    type Tunnel = Echo;

    async fn serve(self: Arc<Self>, request: Request, _: Arc<Connection>, _: Instant) -> Response {
        if request.headers().contains_key("upgrade") {
            return http::Response::new(Body::Tunnel(Box::new(())));
        }
        match request.uri().path() {
            "/large" => http::Response::new(Body::from(Bytes::from_static(&[b'x'; 200 << 10]))),
            _ if request.method() == http::Method::GET => http::Response::new(Body::from("hello")),
            _ => http::Response::new(request.into_body()),
        }
    }

    fn switched(answer: &mut Response) -> Option<Echo> {
        matches!(answer.body(), Body::Tunnel(_)).then_some(Echo)
    }

    async fn carry(self: Arc<Self>, _: Incoming) {}

    fn refuse(&self, status: u16, _: &Arc<Connection>, _: Told) -> Vec<u8> {
        panic!("a client of HTTP/2 is answered {status} in HTTP/1.1");
    }
}

/// What follows a switch.
struct Echo;

impl Tunnel for Echo {
    async fn run(self, mut client: ClientSide, _: Arc<Drain>) {
        let mut piece = [0; 1024];
        while let Ok(Ok(n @ 1..)) = timeout(Duration::from_secs(8), client.read(&mut piece)).await {
            if !matches!(timeout(Duration::from_secs(8), client.write_all(&piece[..n])).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = timeout(Duration::from_secs(8), client.shutdown()).await;
    }
}
