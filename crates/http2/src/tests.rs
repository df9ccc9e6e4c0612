//! Our client against our server, over a pipe that holds little: what either side sends arrives whole, and nothing is left.

mod raw;
mod schedule;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use crate::client::{self, Requests};
use crate::server::Server;
use crate::shared::Shared;
use crate::{By, Error, Limits, Piece, Reason, RecvStream, SendStream};

const LIMITS: Limits =
    Limits { streams: 30, stream_window: 70_000, connection_window: 100_000, head: 16_384, resets: 20, mistakes: 100 };

/// Both sides, and what drives them.
struct Pair {
    requests: Requests,
    client: Arc<Shared>,
    server: Arc<Shared>,
    driver: JoinHandle<Option<Error>>,
    serving: JoinHandle<Result<(), Error>>,
}

async fn pair(pipe: usize) -> Pair {
    let (near, far) = tokio::io::duplex(pipe);
    let (requests, driver) = client::begin(near, LIMITS);
    let client = Arc::clone(driver.shared());
    let server = Server::new(far, BytesMut::new(), LIMITS);
    let shared = Arc::clone(server.shared());
    let (driver, serving) = (tokio::spawn(driver), tokio::spawn(serve(server)));
    while !requests.is_settled() {
        tokio::task::yield_now().await;
    }
    Pair { requests, client, server: shared, driver, serving }
}

async fn serve(mut server: Server<DuplexStream>) -> Result<(), Error> {
    while let Some(accepted) = poll_fn(|cx| server.poll_accept(cx)).await {
        let (request, sending) = accepted?;
        if request.uri().path() == "/last" {
            server.end_gracefully();
        }
        tokio::spawn(echo(request, sending));
    }
    Ok(())
}

/// Gives back what comes; or waits until it is not wanted any more.
async fn echo(mut request: Request<RecvStream>, mut sending: SendStream) {
    sending.answer(StatusCode::OK, false, |_| {}).unwrap();
    loop {
        match poll_fn(|cx| request.body_mut().poll(cx)).await {
            Some(Ok(Piece::Data(data))) => {
                if send(&mut sending, data).await.is_err() {
                    return;
                }
            }
            Some(Ok(Piece::Trailers(trailers))) => return sending.trailers(&trailers).unwrap(),
            Some(Err(error)) => {
                assert_eq!(error.reset_by_peer(), Some(Reason::CANCEL));
                return;
            }
            None => return sending.end().unwrap(),
        }
    }
}

async fn send(stream: &mut SendStream, mut data: Bytes) -> Result<(), Error> {
    while !data.is_empty() {
        poll_fn(|cx| stream.poll_room(cx)).await?;
        stream.send(&mut data, false)?;
    }
    Ok(())
}

/// Sends a body and trailers, and answers what came back.
async fn ask(requests: &Requests, path: &str, body: Bytes) -> Result<(Vec<u8>, Option<HeaderMap>), Error> {
    let (mut answer, mut sending) = requests.send(&Method::POST, false, |fields| {
        fields.request(&Method::POST, false, b"a.test", [path.as_bytes(), b""]);
    })?;
    let upload = async {
        send(&mut sending, body).await?;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("5"));
        sending.trailers(&trailers)
    };
    let download = async {
        let head = poll_fn(|cx| answer.poll(cx)).await?;
        assert_eq!(head.status(), StatusCode::OK);
        let (mut body, mut all) = (head.into_body(), Vec::new());
        loop {
            match poll_fn(|cx| body.poll(cx)).await {
                Some(Ok(Piece::Data(data))) => all.extend_from_slice(&data),
                Some(Ok(Piece::Trailers(trailers))) => return Ok((all, Some(trailers))),
                Some(Err(error)) => return Err(error),
                None => return Ok((all, None)),
            }
        }
    };
    let (sent, came) = tokio::join!(upload, download);
    sent.and(came)
}

/// No stream is left on a side, and all of its window can be used.
fn is_clean(shared: &Shared) {
    let mut connection = shared.lock();
    assert_eq!((connection.streams.open(), connection.streams.held()), (0, 0));
    assert_eq!(connection.window_in_all(), i64::from(LIMITS.connection_window));
    connection.waiting.clear();
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

#[tokio::test]
async fn bodies_wider_than_every_window_pass_both_ways_on_many_streams() {
    let pair = Arc::new(pair(700).await);
    let streams = (1..=25_usize).map(|number| {
        let pair = Arc::clone(&pair);
        tokio::spawn(async move {
            // Small pieces that are copied together, and large ones that are not.
            let body: Vec<u8> = (0..number * number * 700).map(|at| (at % 251) as u8).collect();
            let (came, trailers) = ask(&pair.requests, "/", body.clone().into()).await.unwrap();
            assert!(came == body, "{} of {} bytes", came.len(), body.len());
            assert_eq!(trailers.unwrap()["x-sum"], "5");
        })
    });
    let streams: Vec<_> = streams.collect();
    for stream in streams {
        in_time(stream).await.unwrap();
    }
    is_clean(&pair.client);
    is_clean(&pair.server);
}

#[tokio::test]
async fn who_drops_a_stream_resets_it_and_leaves_nothing_behind() {
    let pair = pair(3000).await;
    for number in 0..60 {
        let (mut answer, mut sending) = pair
            .requests
            .send(&Method::POST, false, |fields| fields.request(&Method::POST, false, b"a.test", [b"/", b""]))
            .unwrap();
        if number % 3 > 0 {
            let mut data = Bytes::from(vec![b'x'; 5000]);
            in_time(poll_fn(|cx| sending.poll_room(cx))).await.unwrap();
            sending.send(&mut data, false).unwrap();
            let head = in_time(poll_fn(|cx| answer.poll(cx))).await.unwrap();
            if number % 3 > 1 {
                let mut body = head.into_body();
                in_time(poll_fn(|cx| body.poll(cx))).await.unwrap().unwrap();
            }
        }
    }
    let (came, _) = in_time(ask(&pair.requests, "/", Bytes::from_static(b"still here"))).await.unwrap();
    assert_eq!(came, b"still here");
    is_clean(&pair.client);
    is_clean(&pair.server);
}

#[tokio::test]
async fn a_graceful_end_serves_what_is_under_way_and_refuses_what_comes() {
    let pair = pair(100_000).await;
    let body = Bytes::from(vec![b'y'; 300_000]);
    let (came, _) = in_time(ask(&pair.requests, "/last", body.clone())).await.unwrap();
    assert!(came == body);
    let refused = in_time(ask(&pair.requests, "/", Bytes::from_static(b"x"))).await.unwrap_err();
    assert!(refused.is_refused() || matches!(refused, Error::Io(_)), "{refused:?}");
    in_time(pair.serving).await.unwrap().unwrap();
    in_time(pair.driver).await.unwrap();
    assert!(pair.requests.check().is_err());
}

#[tokio::test]
async fn a_connection_that_nobody_wants_any_more_ends() {
    let Pair { requests, driver, serving, .. } = pair(1000).await;
    in_time(ask(&requests, "/", Bytes::from_static(b"x"))).await.unwrap();
    drop(requests);
    assert!(in_time(driver).await.unwrap().is_none_or(|error| !matches!(error, Error::Ended { by: By::Us, .. })));
    in_time(serving).await.unwrap().unwrap();
}
