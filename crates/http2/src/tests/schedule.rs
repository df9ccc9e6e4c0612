//! Any mixture of what both sides may do with streams, by seeds: whole bodies stay whole, and nothing is left behind.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use tokio::io::DuplexStream;

use super::{LIMITS, ask, in_time, is_clean, send};
use crate::client::{self, Requests};
use crate::server::Server;
use crate::{Piece, Reason, RecvStream, SendStream};

/// Numbers that are the same in each run.
#[derive(Clone)]
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end) as usize
    }
}

/// Reads until there is as much, or no more.
async fn read(body: &mut RecvStream, most: usize) -> usize {
    let mut all = 0;
    while all < most
        && let Some(Ok(Piece::Data(data))) = poll_fn(|cx| body.poll(cx)).await
    {
        all += data.len();
    }
    all
}

async fn respond(mut request: Request<RecvStream>, mut sending: SendStream, mut numbers: Numbers) {
    let plan = if request.uri().path() == "/whole" { 0 } else { numbers.below(8) };
    let size = numbers.below(90_000);
    if plan == 1 {
        return;
    }
    if plan == 2 {
        return sending.reset(Reason::REFUSED_STREAM);
    }
    // The other side may have taken it back already.
    if sending.answer(StatusCode::OK, plan == 3, |_| {}).is_err() || plan == 3 {
        return;
    }
    match plan {
        4 => {
            read(request.body_mut(), size).await;
            sending.reset(Reason::INTERNAL_ERROR);
        }
        5 => {
            drop(request);
            if send(&mut sending, vec![b'z'; size].into()).await.is_ok() {
                let _ = sending.end();
            }
        }
        6 => {
            // Handed over, and never released.
            let _ = poll_fn(|cx| request.body_mut().poll_data(cx)).await;
        }
        _ => loop {
            match poll_fn(|cx| request.body_mut().poll(cx)).await {
                Some(Ok(Piece::Data(data))) => {
                    if send(&mut sending, data).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Piece::Trailers(trailers))) => return drop(sending.trailers(&trailers)),
                Some(Err(_)) => return,
                None => return drop(sending.end()),
            }
        },
    }
}

async fn serve(mut server: Server<DuplexStream>, mut numbers: Numbers) {
    while let Some(accepted) = poll_fn(|cx| server.poll_accept(cx)).await {
        let (request, sending) = accepted.unwrap();
        let seed = numbers.below(u64::MAX) as u64;
        tokio::spawn(respond(request, sending, Numbers(seed)));
    }
}

/// A stream that its client leaves somewhere.
async fn leave(requests: &Requests, mut numbers: Numbers) {
    let head = |fields: &mut crate::Fields<'_>| fields.request(&Method::POST, false, b"a.test", [b"/any", b""]);
    let (mut answer, mut sending) = requests.send(&Method::POST, false, head).unwrap();
    let plan = numbers.below(5);
    // Who reads nothing sends little: an echo of more would wait for it, and it for the echo.
    let size = numbers.below(if plan == 4 { 4000 } else { 120_000 });
    let upload = async {
        if send(&mut sending, Bytes::from(vec![b'u'; size])).await.is_ok() {
            let _ = sending.end();
        }
    };
    let download = async {
        if let Ok(head) = poll_fn(|cx| answer.poll(cx)).await {
            let mut body = head.into_body();
            read(&mut body, if plan == 1 { size / 2 } else { usize::MAX }).await;
        }
    };
    match plan {
        0 => {}
        2 => drop(tokio::join!(upload, download)),
        // Whoever is first takes the other with it.
        1 | 3 => tokio::select! { () = upload => {}, () = download => {} },
        _ => {
            // What nobody will read must take no room from those who do.
            drop(download);
            drop(answer);
            upload.await;
            sending.reset(Reason::CANCEL);
        }
    }
}

async fn play(seed: u64) {
    let mut numbers = Numbers(seed);
    let pipe = [64, 700, 5000, 100_000][numbers.below(4)];
    let (near, far) = tokio::io::duplex(pipe);
    let (requests, driver) = client::begin(near, LIMITS);
    let (client, server) = (Arc::clone(driver.shared()), Server::new(far, BytesMut::new(), LIMITS));
    let shared = Arc::clone(server.shared());
    let (driver, serving) = (tokio::spawn(driver), tokio::spawn(serve(server, Numbers(seed ^ 0x5eed))));
    while !requests.is_settled() {
        tokio::task::yield_now().await;
    }
    let requests = Arc::new(requests);
    for _ in 0..3 {
        let mut streams = Vec::new();
        for at in 0..15 {
            let (requests, numbers) = (Arc::clone(&requests), Numbers(numbers.below(u64::MAX) as u64));
            streams.push(tokio::spawn(async move {
                if at % 3 > 0 {
                    return leave(&requests, numbers).await;
                }
                let body = Bytes::from(vec![at as u8; 40_000 + at * 3000]);
                let (came, trailers) = ask(&requests, "/whole", body.clone()).await.unwrap();
                assert!(came == body && trailers.is_some(), "{} of {} bytes", came.len(), body.len());
            }));
        }
        for stream in streams {
            in_time(stream).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    // What was left is told to the other side, and tasks there end.
    let quiet = || [&client, &shared].iter().all(|side| side.lock().streams.held() == 0);
    in_time(async {
        while !quiet() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    is_clean(&client);
    is_clean(&shared);
    drop(requests);
    in_time(driver).await.unwrap();
    in_time(serving).await.unwrap();
}

#[tokio::test]
async fn whatever_becomes_of_streams_nothing_is_left_of_them() {
    for seed in 0..24 {
        play(seed).await;
    }
}
