//! What the link is held to: a real server that is frozen, killed and back, and nobody who waits for longer than one call may take.

use std::net::SocketAddr;

use pylon_testkit::redis::Redis as Server;
use pylon_testkit::wait;

use super::*;
use crate::marks::Marks;
use crate::sessions::{Sessions, Spans};

const TIMEOUT: Duration = Duration::from_millis(250);
/// What a call may take besides its time on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1500);

fn link(spec: &str) -> Redis {
    let resolver = Resolver::new(&[SocketAddr::from(([127, 0, 0, 1], 53))]).unwrap();
    let plain: Reveal = |spec| match spec {
        SecretSpec::Plain(secret) => Ok(secret.clone()),
        SecretSpec::Env(_) | SecretSpec::File(_) => Err(SpecError::new(FieldPath::root(), "tests have plain secrets")),
    };
    let spec: RedisSpec = serde_json::from_str(spec).unwrap();
    Redis::new(&spec, &resolver, plain).unwrap()
}

async fn started(server: &Server, more: &str) -> Arc<Redis> {
    let link = link(&format!(r#"{{ "url": "{}/3"{more} }}"#, server.url()));
    link.start(&Handle::current());
    link.settle().await;
    Arc::new(link)
}

/// Waits until the link is in use, or out of it.
async fn until(link: &Redis, up: bool) {
    let begun = wait::now();
    while link.reading().up != up {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", link.reading());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_run_in_their_order_and_all_or_none_where_that_is_asked_for() {
    let server = Server::start();
    let link = started(&server, "").await;
    let key = link.key("a");
    assert_eq!(key, "pylon:a");
    let set = Command::new("SET").arg(&key).arg(b"\0\xff");
    let replies = link.run(&[set, Command::new("GET").arg(&key), Command::new("GET").arg("none")], false).await;
    assert_eq!(replies, Ok(vec![Reply::Done, Reply::Bytes(b"\0\xff".to_vec()), Reply::Nothing]));
    let wrong = [Command::new("SET").arg("b").arg("1"), Command::new("SET").arg("c")];
    assert!(matches!(link.run(&wrong, true).await, Err(StoreError::Refused(_))));
    assert_eq!(link.run(&[Command::new("EXISTS").arg("b")], false).await, Ok(vec![Reply::Number(0)]));
    let reading = link.reading();
    assert_eq!((reading.up, reading.error, reading.failures), (true, None, 1));
    // In the database that the URL names.
    assert!(server.say("GET pylon:a").starts_with("$-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_holds_nobody_up_and_is_used_again_by_itself() {
    let server = Server::start();
    let link = started(&server, "").await;
    server.freeze();
    let begun = wait::now();
    assert!(link.run(&[Command::new("PING")], false).await.is_err());
    assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
    // From then on nobody waits at all.
    let begun = wait::now();
    for _ in 0..1000 {
        assert!(matches!(link.run(&[Command::new("PING")], false).await, Err(StoreError::Down(_))));
    }
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    server.thaw();
    let begun = wait::now();
    until(&link, true).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(link.run(&[Command::new("PING")], false).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_found_before_anybody_asks() {
    let server = Server::start();
    let link = started(&server, "").await;
    server.freeze();
    until(&link, false).await;
    assert!(matches!(link.run(&[Command::new("PING")], false).await, Err(StoreError::Down(_))));
    server.thaw();
    until(&link, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_or_not_there_yet_is_found_when_it_comes() {
    let mut server = Server::start();
    let link = started(&server, "").await;
    server.kill();
    until(&link, false).await;
    let late = started(&server, "").await;
    assert!(!late.reading().up && late.reading().error.is_some());
    server.revive();
    for link in [&link, &late] {
        until(link, true).await;
        assert!(link.run(&[Command::new("PING")], false).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_what_is_closed_and_a_wrong_one_does_not() {
    let server = Server::start_with(&["--requirepass", "open sesame"]);
    let link = started(&server, r#", "password": "open sesame""#).await;
    assert!(link.run(&[Command::new("PING")], false).await.is_ok());
    for wrong in ["", r#", "password": "hunter2""#] {
        let closed = started(&server, wrong).await;
        assert!(matches!(closed.run(&[Command::new("PING")], false).await, Err(StoreError::Down(_))), "{wrong}");
        let told = closed.reading().error.unwrap();
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_kept_for_their_time_and_end_by_id_and_by_whom_they_are_of() {
    let server = Server::start();
    let sessions = Sessions::new(started(&server, "").await);
    let secs = Duration::from_secs;
    let hour = Spans { unused: secs(1800), longest: secs(3600) };
    assert_eq!(sessions.get("a").await, Ok(None));
    sessions.set("a", b"sealed a", hour, &["sub:ann", "sid:1"]).await.unwrap();
    sessions.set("b", b"sealed b", hour, &["sub:ann", "sid:2"]).await.unwrap();
    sessions.set("c", b"sealed c", hour, &["sub:bob"]).await.unwrap();
    let kept = sessions.get("a").await.unwrap().unwrap();
    assert!(kept.sealed == b"sealed a" && kept.left <= secs(1800) && kept.left > secs(1700), "{kept:?}");
    sessions.set("a", b"new", hour, &["sub:ann", "sid:1"]).await.unwrap();
    assert_eq!(sessions.get("a").await.unwrap().unwrap().sealed, b"new");
    assert_eq!(sessions.delete_by("sid:2").await, Ok(1));
    assert_eq!((sessions.get("b").await, sessions.delete_by("sid:2").await), (Ok(None), Ok(0)));
    sessions.set("d", b"d", hour, &["sub:ann"]).await.unwrap();
    // One of the three is gone already.
    assert_eq!(sessions.delete_by("sub:ann").await, Ok(2));
    assert_eq!((sessions.get("a").await, sessions.get("d").await), (Ok(None), Ok(None)));
    assert_eq!(sessions.delete("c", &["sub:bob"]).await, Ok(true));
    assert_eq!((sessions.delete("c", &["sub:bob"]).await, sessions.delete_by("sub:bob").await), (Ok(false), Ok(0)));
    let soon = Duration::from_millis(50);
    sessions.set("e", b"e", Spans { unused: soon, longest: soon }, &["sub:eve"]).await.unwrap();
    let begun = wait::now();
    while sessions.get("e").await != Ok(None) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The index goes with its last session.
    while sessions.delete_by("sub:eve").await != Ok(0) {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_lives_as_long_as_the_last_session_in_it() {
    let server = Server::start();
    let sessions = Sessions::new(started(&server, "").await);
    let hour = Duration::from_secs(3600);
    sessions.set("long", b"l", Spans { unused: hour, longest: hour }, &["sub:ann"]).await.unwrap();
    let soon = Duration::from_millis(20);
    sessions.set("short", b"s", Spans { unused: soon, longest: soon }, &["sub:ann"]).await.unwrap();
    let begun = wait::now();
    while sessions.get("short").await != Ok(None) {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sessions.delete_by("sub:ann").await, Ok(1));
    assert_eq!(sessions.get("long").await, Ok(None));
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    let resolver = Resolver::new(&[SocketAddr::from(([127, 0, 0, 1], 53))]).unwrap();
    let none: Reveal = |_| Err(SpecError::new(FieldPath::root(), "there is no such secret"));
    for (spec, at) in [
        (r#"{ "url": "http://a" }"#, "url"),
        (r#"{ "url": "redis://" }"#, "url"),
        (r#"{ "url": "redis://a:0" }"#, "url"),
        (r#"{ "url": "redis://a:x" }"#, "url"),
        (r#"{ "url": "redis://a/x" }"#, "url"),
        (r#"{ "url": "redis://user:secret@a" }"#, "url"),
        (r#"{ "url": "redis://a", "password": "env:NONE" }"#, "password"),
        (r#"{ "url": "redis://a", "username": "u" }"#, "username"),
        (r#"{ "url": "redis://a", "prefix": "" }"#, "prefix"),
        (r#"{ "url": "redis://a", "prefix": "a b" }"#, "prefix"),
        (r#"{ "url": "redis://a", "timeout": "1ms" }"#, "timeout"),
        (r#"{ "url": "redis://a", "timeout": "1m" }"#, "timeout"),
        (r#"{ "url": "redis://a", "tls": {} }"#, "tls"),
        (r#"{ "url": "rediss://a", "tls": { "ca": "/does/not/exist.pem" } }"#, "tls.ca"),
    ] {
        let spec: RedisSpec = serde_json::from_str(spec).unwrap();
        let errors = Redis::new(&spec, &resolver, none).unwrap_err();
        assert_eq!(errors[0].at.to_string(), at, "{spec:?}: {}", errors[0].problem);
    }
    for spec in [r#"{ "url": "redis://a" }"#, r#"{ "url": "redis://[::1]:7000/2" }"#, r#"{ "url": "redis://A.test/" }"#]
    {
        let spec: RedisSpec = serde_json::from_str(spec).unwrap();
        assert!(Redis::new(&spec, &resolver, none).is_ok(), "{spec:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_done_to_a_session_that_was_taken_away_brings_it_back() {
    let server = Server::start();
    let sessions = Sessions::new(started(&server, "").await);
    let (hour, long) = (Duration::from_secs(3600), Duration::from_secs(7200));
    let spans = Spans { unused: hour, longest: long };
    sessions.set("a", b"one", spans, &["sub:ann"]).await.unwrap();
    assert_eq!(sessions.exchange("a", b"other", b"x").await, Ok(false), "somebody was quicker");
    assert_eq!(sessions.exchange("a", b"one", b"two").await, Ok(true));
    let kept = sessions.get("a").await.unwrap().unwrap();
    assert!(kept.sealed == b"two" && kept.left <= hour, "{kept:?}");
    assert_eq!(
        (sessions.replace("a", b"three", long).await, sessions.touch("a", spans, &["sub:ann"]).await),
        (Ok(true), Ok(true))
    );
    let kept = sessions.get("a").await.unwrap().unwrap();
    assert!(kept.sealed == b"three" && kept.left <= hour, "{kept:?}");
    // An index that went before its time is there again with the next use.
    server.say("SELECT 3\r\nDEL pylon:sessions:sub:ann");
    assert_eq!(sessions.touch("a", spans, &["sub:ann"]).await, Ok(true));
    assert_eq!(sessions.delete_by("sub:ann").await, Ok(1));
    assert_eq!(sessions.exchange("a", b"three", b"x").await, Ok(false));
    assert_eq!(
        (sessions.replace("a", b"x", long).await, sessions.touch("a", spans, &["sub:ann"]).await),
        (Ok(false), Ok(false))
    );
    assert_eq!(sessions.get("a").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_has_a_session_for_itself_and_nobody_gives_away_what_another_one_has() {
    let server = Server::start();
    let (one, other) = (started(&server, "").await, started(&server, "").await);
    let (one, other) = (Sessions::new(one), Sessions::new(other));
    let minute = Duration::from_secs(60);
    assert_eq!((one.lock("a", "1", minute).await, other.lock("a", "2", minute).await), (Ok(true), Ok(false)));
    other.unlock("a", "2").await.unwrap();
    assert_eq!((other.lock("a", "2", minute).await, other.lock("b", "2", minute).await), (Ok(false), Ok(true)));
    one.unlock("a", "1").await.unwrap();
    assert_eq!(other.lock("a", "2", Duration::from_millis(50)).await, Ok(true));
    let begun = wait::now();
    while one.lock("a", "1", minute).await != Ok(true) {
        assert!(begun.elapsed() < Duration::from_secs(10), "whoever has died has it for good");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_are_moments_of_one_clock_and_what_is_none_is_not_taken_for_nothing() {
    let server = Server::start();
    let marks = Marks::new(started(&server, "").await);
    let names = ["a".to_owned(), "b".to_owned()];
    let now = marks.now().await.unwrap();
    assert!(now > 1_700_000_000);
    assert_eq!((marks.get(&names).await, marks.get(&[]).await), (Ok(vec![None, None]), Ok(Vec::new())));
    marks.set("b", now, Duration::from_secs(60)).await.unwrap();
    assert_eq!(marks.get(&names).await, Ok(vec![None, Some(now)]));
    assert_eq!((marks.settle("c", 5).await, marks.settle("c", 7).await), (Ok(5), Ok(5)));
    server.say("SELECT 3\r\nSET pylon:mark:a garbage");
    assert_eq!(marks.get(&names).await, Err(StoreError::Odd));
}
