//! The gateway's own requests: what is asked, what is answered, and what does not come.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use pylon_core::spec::FieldPath;
use pylon_net::resolve::Resolver;
use pylon_net::tls::spec::UpstreamTlsSpec;

use super::fixture::Service;
use crate::fetch::{Ask, FetchError, Remote};

fn within(millis: u64) -> Instant {
    tokio::time::Instant::now().into_std() + Duration::from_millis(millis)
}

fn resolver() -> Resolver {
    Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()
}

fn remote(url: &str) -> Remote {
    Remote::new(url, &FieldPath::root(), None, &resolver()).unwrap()
}

#[tokio::test]
async fn a_request_goes_below_the_path_of_the_service_and_its_answer_is_whole() {
    let service = Service::new(|mut peer, _| async move {
        let (head, body) = peer.request().await.unwrap();
        let told = format!("{head}{}", String::from_utf8(body).unwrap());
        peer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
        peer.write(format!("HTTP/1.1 201 Made\r\nx-index: 7\r\ncontent-length: {}\r\n\r\n", told.len()).as_bytes())
            .await;
        peer.write(told.as_bytes()).await;
    })
    .await;
    let ask = Ask::post("/token?a=b", "application/x-www-form-urlencoded", "grant=x")
        .with(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"));
    let answer = remote(&format!("{}/base/", service.url())).fetch(&ask, 1024, within(5000)).await.unwrap();
    assert_eq!((answer.status, answer.headers["x-index"].as_bytes()), (StatusCode::CREATED, &b"7"[..]));
    let told = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(told.starts_with("POST /base/token?a=b HTTP/1.1\r\n") && told.ends_with("\r\n\r\ngrant=x"), "{told}");
    for field in
        [&format!("host: {}", service.addr), "authorization: Bearer t", "content-length: 7", "connection: close"]
    {
        assert!(told.contains(&format!("{field}\r\n")), "{field}: {told}");
    }
}

#[tokio::test]
async fn lines_come_as_they_are_sent_and_silence_ends_by_the_deadline_alone() {
    let service = Service::new(|mut peer, _| async move {
        peer.request().await.unwrap();
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\none\ntw\r\n").await;
        peer.write(b"4\r\no\r\n\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        peer.write(b"5\r\nthree\r\n0\r\n\r\n").await;
    })
    .await;
    let mut answer = remote(&service.url()).ask(&Ask::get("/"), within(5000)).await.unwrap();
    assert_eq!(answer.line(100, within(5000)).await.unwrap().unwrap(), "one");
    assert_eq!(answer.line(100, within(5000)).await.unwrap().unwrap(), "two");
    assert!(matches!(answer.line(100, within(20)).await, Err(FetchError::Late)));
    assert_eq!(answer.line(100, within(5000)).await.unwrap().unwrap(), "three");
    assert_eq!(answer.line(100, within(5000)).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_too_large_late_cut_or_no_http_is_an_error() {
    let large = Service::saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789").await;
    let at = remote(&large.url());
    assert_eq!(at.fetch(&Ask::get("/"), 10, within(5000)).await.unwrap().body, "0123456789");
    assert!(matches!(at.fetch(&Ask::get("/"), 9, within(5000)).await, Err(FetchError::TooLarge(9))));
    let mut answer = at.ask(&Ask::get("/"), within(5000)).await.unwrap();
    assert!(matches!(answer.line(9, within(5000)).await, Err(FetchError::TooLarge(9))));

    let silent = Service::new(|mut peer, _| async move {
        peer.request().await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    assert!(matches!(remote(&silent.url()).fetch(&Ask::get("/"), 10, within(50)).await, Err(FetchError::Late)));

    let cut = Service::new(|mut peer, _| async move {
        peer.request().await.unwrap();
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n012").await;
    })
    .await;
    assert!(matches!(remote(&cut.url()).fetch(&Ask::get("/"), 10, within(5000)).await, Err(FetchError::Incomplete(_))));
    let unframed = Service::saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello");
    let unframed = remote(&unframed.await.url()).fetch(&Ask::get("/"), 10, within(5000)).await;
    assert!(matches!(unframed, Err(FetchError::Framing(_))));

    let other = Service::saying("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert!(matches!(remote(&other.url()).fetch(&Ask::get("/"), 10, within(5000)).await, Err(FetchError::Head(_))));

    let url = large.url();
    drop(large);
    tokio::task::yield_now().await;
    let gone = remote(&url).fetch(&Ask::get("/"), 10, within(5000)).await.unwrap_err();
    assert!(matches!(gone, FetchError::Connect(..)), "{gone}");
}

#[test]
fn what_cannot_be_a_service_is_told_at_its_key() {
    let at = FieldPath::root().key("address");
    let errors = |url: &str, tls: Option<&UpstreamTlsSpec>| Remote::new(url, &at, tls, &resolver()).unwrap_err();
    for (url, why) in [
        ("localhost:8500", "has no scheme"),
        ("tcp://localhost:8500", "is not spoken to by HTTP"),
        ("http://localhost/?a=b", "has a query"),
        ("https://a..b", "no certificate can be for"),
        ("http://me@localhost", "has a user name"),
    ] {
        let error = errors(url, None).remove(0);
        assert!(error.problem.contains(why), "{url}: {}", error.problem);
        assert_eq!(error.at, at, "{url}");
    }
    let error = errors("http://localhost", Some(&UpstreamTlsSpec::default())).remove(0);
    assert_eq!(error.at, FieldPath::root().key("tls"));
}
