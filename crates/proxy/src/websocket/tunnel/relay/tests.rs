use std::future::poll_fn;
use std::pin::pin;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

const RULES: WebSocket = WebSocket { idle: Duration::from_secs(60), max_lifetime: None, max_message: None };
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xE8];
const CLOSED: [u8; 4] = [0x88, 2, 3, 0xE8];

/// Client and service of a relay that runs, and how it ends: how, and what passed each way.
struct Stage {
    client: DuplexStream,
    service: DuplexStream,
    end: JoinHandle<(End, u64, u64)>,
    drain: std::sync::Arc<tokio::sync::Notify>,
}

fn stage(rules: WebSocket, room: usize) -> Stage {
    let ((client, of_client), (service, of_service)) = (duplex(room), duplex(room));
    let drain = std::sync::Arc::new(tokio::sync::Notify::new());
    let wanted = std::sync::Arc::clone(&drain);
    let end = tokio::spawn(async move {
        let mut relay = Relay::new(of_client, of_service, rules);
        let mut wanted = pin!(wanted.notified());
        poll_fn(|cx| {
            if !relay.is_ending() && wanted.as_mut().poll(cx).is_ready() {
                relay.close(End::Drained, (Code::GoingAway, Code::GoingAway), DRAINING);
            }
            relay.poll(cx)
        })
        .await;
        let (up, down) = relay.passed();
        (relay.how().unwrap_or(End::Drained), up, down)
    });
    Stage { client, service, end, drain }
}

impl Stage {
    async fn end(self) -> (End, u64, u64) {
        let Self { end, .. } = self;
        end.await.unwrap()
    }
}

fn text(masked: bool, length: usize) -> Vec<u8> {
    let mask: u8 = if masked { 0x80 } else { 0 };
    let mut bytes = vec![0x81, mask | 0x7E];
    bytes.extend_from_slice(&(length as u16).to_be_bytes());
    bytes.resize(bytes.len() + length + if masked { 4 } else { 0 }, b'x');
    bytes
}

async fn reads(stream: &mut DuplexStream, wanted: &[u8]) {
    let mut bytes = vec![0; wanted.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert!(bytes == wanted, "{:?} and not {:?}", bytes.get(..20), wanted.get(..20));
}

async fn reads_end(stream: &mut DuplexStream) {
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_reads_slowly_holds_the_other_back() {
    let mut stage = stage(RULES, 1024);
    let message = text(true, 60_000);
    let writing = tokio::time::timeout(Duration::from_secs(1), stage.client.write_all(&message)).await;
    assert!(writing.is_err(), "no more than the buffers is taken from who sends");
    let mut seen = vec![0; 2 * 1024];
    stage.service.read_exact(&mut seen).await.unwrap();
    assert!(seen == message[..seen.len()]);
    drop(stage.client);
    assert_eq!(stage.end.await.unwrap().0, End::ClientGone);
}

#[tokio::test(start_paused = true)]
async fn a_close_by_the_rules_is_complete_and_counted() {
    let mut stage = stage(RULES, 4096);
    stage.client.write_all(&text(true, 100)).await.unwrap();
    reads(&mut stage.service, &text(true, 100)).await;
    stage.client.write_all(&CLOSE).await.unwrap();
    reads(&mut stage.service, &CLOSE).await;
    stage.service.write_all(&CLOSED).await.unwrap();
    stage.service.shutdown().await.unwrap();
    reads(&mut stage.client, &CLOSED).await;
    reads_end(&mut stage.client).await;
    assert_eq!(stage.end().await, (End::Complete, 116, 4));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_sending_side_behind_its_close_still_gets_the_answer() {
    let mut stage = stage(RULES, 4096);
    stage.client.write_all(&CLOSE).await.unwrap();
    stage.client.shutdown().await.unwrap();
    reads(&mut stage.service, &CLOSE).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.service.write_all(&CLOSED).await.unwrap();
    reads(&mut stage.client, &CLOSED).await;
    assert_eq!(stage.end().await, (End::Complete, 8, 4));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_goes_without_a_close_takes_the_other_with_it() {
    let mut first = stage(RULES, 4096);
    drop(first.client);
    let begun = tokio::time::Instant::now();
    reads_end(&mut first.service).await;
    assert_eq!(first.end.await.unwrap().0, End::ClientGone);
    let mut second = stage(RULES, 4096);
    drop(second.service);
    reads_end(&mut second.client).await;
    assert!(begun.elapsed() < Duration::from_millis(100));
    drop(second.client);
    assert_eq!(second.end.await.unwrap().0, End::UpstreamBroke);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_gateway_waits_for_the_frame_under_way_and_for_nothing_behind_it() {
    let mut stage = stage(RULES, 4096);
    let message = text(true, 300);
    stage.client.write_all(&message[..100]).await.unwrap();
    reads(&mut stage.service, &message[..100]).await;
    stage.drain.notify_waiters();
    reads(&mut stage.client, &[0x88, 2, 3, 0xE9]).await;
    stage.client.write_all(&message[100..]).await.unwrap();
    stage.client.write_all(&text(true, 50)).await.unwrap();
    stage.client.write_all(&CLOSE).await.unwrap();
    reads(&mut stage.service, &message[100..]).await;
    let mut close = [0; 8];
    stage.service.read_exact(&mut close).await.unwrap();
    let [0x88, 0x82, a, b, .., high, low] = close else { panic!("{close:?}") };
    assert_eq!([high ^ a, low ^ b], [3, 0xE9]);
    stage.service.write_all(&CLOSED).await.unwrap();
    reads_end(&mut stage.service).await;
    reads_end(&mut stage.client).await;
    assert_eq!(stage.end().await.0, End::Drained);
}

#[tokio::test(start_paused = true)]
async fn sides_that_do_not_answer_a_close_are_left_after_a_while() {
    let stage = stage(RULES, 4096);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = tokio::time::Instant::now();
    stage.drain.notify_waiters();
    let Stage { client, service, end, .. } = stage;
    assert_eq!(end.await.unwrap().0, End::Drained);
    assert!(begun.elapsed() < CLOSING + Duration::from_secs(1), "{:?}", begun.elapsed());
    drop((client, service));
}

#[tokio::test(start_paused = true)]
async fn who_breaks_the_protocol_is_told_so_and_the_other_is_told_that_it_is_over() {
    let mut stage = stage(RULES, 4096);
    let unmasked = text(false, 10);
    stage.client.write_all(&[text(true, 20), unmasked].concat()).await.unwrap();
    reads(&mut stage.service, &text(true, 20)).await;
    reads(&mut stage.client, &[0x88, 2, 3, 0xEA]).await;
    let mut close = [0; 8];
    stage.service.read_exact(&mut close).await.unwrap();
    assert_eq!(close[..2], [0x88, 0x82]);
    stage.service.write_all(&CLOSED).await.unwrap();
    drop(stage.client);
    assert_eq!(stage.end.await.unwrap(), (End::ClientBroke, 28, 0));
}

#[tokio::test(start_paused = true)]
async fn messages_over_the_limit_and_idle_or_old_connections_are_closed() {
    let mut long = stage(WebSocket { max_message: Some(1000), ..RULES }, 4096);
    long.client.write_all(&text(true, 1001)).await.unwrap();
    reads(&mut long.client, &[0x88, 2, 3, 0xF1]).await;
    let begun = tokio::time::Instant::now();
    let mut idle = stage(RULES, 4096);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        idle.service.write_all(&text(false, 5)).await.unwrap();
        reads(&mut idle.client, &text(false, 5)).await;
    }
    reads(&mut idle.client, &[0x88, 2, 3, 0xE9]).await;
    assert!((210..=214).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(idle.end().await.0, End::Timeout(Timer::Idle));
    let mut old = stage(WebSocket { max_lifetime: Some(Duration::from_secs(70)), ..RULES }, 4096);
    tokio::time::sleep(Duration::from_secs(50)).await;
    old.service.write_all(&text(false, 5)).await.unwrap();
    reads(&mut old.client, &text(false, 5)).await;
    reads(&mut old.client, &[0x88, 2, 3, 0xE9]).await;
    assert_eq!(old.end().await.0, End::Timeout(Timer::MaxLifetime));
}
