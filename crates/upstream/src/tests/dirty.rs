//! FAILURES 6: a connection goes back to the pool only clean, so that nobody reads another's answer; and clean ones do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::Method;
use pylon_core::body::Body;

use super::fixture::{Service, call, channel_body, data, get, request, to, whole};

const ONE_SLOT: &str = r#", "pool": { "max_idle": 1 }"#;

/// Asks for `dirty` and then for a tag, and tells whether the tag is right and how many connections it took.
async fn tag_after(answer: &'static [u8], method: Method, leave_unread: bool) -> usize {
    let service = Service::new(move |mut peer, _| async move {
        while let Some((head, _)) = peer.request().await {
            let tag = head.split("/tag/").nth(1).and_then(|rest| rest.split(' ').next());
            match tag {
                None => peer.write(answer).await,
                Some(tag) => {
                    peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{tag}", tag.len()).as_bytes())
                        .await
                }
            };
        }
    })
    .await;
    let upstream = to(&service, ONE_SLOT);
    for round in 0..20 {
        let (answer, _) = call(&upstream, request(&method, "/dirty", Body::Empty)).await;
        if let (Ok(answer), false) = (answer, leave_unread) {
            let _may_break = http_body_util::BodyExt::collect(answer.into_body()).await;
        }
        // Bytes that come late are seen only once the runtime has looked at its sockets.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let tag = format!("{method}{round}");
        let (answer, _) = get(&upstream, &format!("/tag/{tag}")).await;
        assert_eq!(whole(answer.unwrap()).await.0, tag);
    }
    service.connections()
}

#[tokio::test]
async fn clean_answers_of_every_kind_are_followed_on_the_same_connection() {
    for (answer, method) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], Method::GET),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n", Method::HEAD),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Method::HEAD),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Method::DELETE),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\n\r\n", Method::GET),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Method::GET),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nx-sum: 1\r\n\r\n",
            Method::GET,
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Method::GET),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Method::GET),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", Method::GET),
    ] {
        assert_eq!(tag_after(answer, method, false).await, 1, "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn an_unclean_answer_is_the_last_on_its_connection() {
    for (answer, method) in [
        (
            &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"[..],
            Method::GET,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", Method::HEAD),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nbad", Method::GET),
        (b"HTTP/1.1 304 Not Modified\r\n\r\nbad", Method::GET),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nbad", Method::GET),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", Method::GET),
        (b"HTTP/1.1 200 OK\r\nconnection: foo, Close\r\ncontent-length: 0\r\n\r\n", Method::GET),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Method::GET),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Method::GET),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Method::GET,
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Method::GET),
    ] {
        let connections = tag_after(answer, method.clone(), false).await;
        assert!(connections >= 20, "{connections} for {method} {}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_that_the_client_did_not_want_to_the_end_takes_its_connection_along() {
    let big = [b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec(), vec![b'x'; 100_000]].concat();
    assert!(tag_after(Box::leak(big.into_boxed_slice()), Method::GET, true).await >= 20);
}

#[tokio::test]
async fn an_answer_before_the_whole_request_was_sent_ends_the_connection() {
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST") {
                peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
            } else {
                peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine").await;
            }
        }
    })
    .await;
    let upstream = to(&service, ONE_SLOT);
    for round in 1..10 {
        let (sender, body) = channel_body();
        sender.send(data("some")).await.unwrap();
        let (answer, _) = call(&upstream, request(&Method::POST, "/", body)).await;
        assert_eq!(whole(answer.unwrap()).await.0, "early");
        let (answer, cx) = get(&upstream, "/").await;
        assert_eq!(whole(answer.unwrap()).await.0, "mine");
        assert_eq!((cx.trail.reused, service.connections()), (false, round + 1));
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_takes_its_connection_along() {
    let service = Service::new(|mut peer, _| async move {
        while let Some(head) = peer.head().await {
            if head.contains("slow") {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let body = if head.contains("slow") { "theirs" } else { "mine" };
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    })
    .await;
    let upstream = to(&service, ONE_SLOT);
    for _ in 0..10 {
        let gone = tokio::time::timeout(Duration::from_millis(10), get(&upstream, "/slow")).await;
        assert!(gone.is_err());
        assert_eq!(upstream.view().endpoints[0].in_flight, 0);
        let (answer, _) = get(&upstream, "/").await;
        assert_eq!(whole(answer.unwrap()).await.0, "mine");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_see_another_s_answer_and_reuse_what_is_clean() {
    let service = Service::new(|mut peer, _| async move {
        while let Some((head, body)) = peer.request().await {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{path}\r\n{:x}\r\n",
                path.len(),
                body.len()
            );
            peer.write(answer.as_bytes()).await;
            peer.write(&[&body[..], b"\r\n0\r\n\r\n"].concat()).await;
        }
    })
    .await;
    let upstream = Arc::new(to(&service, ""));
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for task in 0..16 {
        let (upstream, asked) = (Arc::clone(&upstream), Arc::clone(&asked));
        tasks.push(tokio::spawn(async move {
            for round in 0..150 {
                let tag = format!("/{task}/{round}");
                let (answer, _) = call(&upstream, request(&Method::POST, &tag, tag.clone())).await;
                assert_eq!(whole(answer.unwrap()).await.0, format!("{tag}{tag}"));
                asked.fetch_add(1, SeqCst);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(asked.load(SeqCst), 2400);
    assert!(service.connections() <= 24, "{} connections", service.connections());
}
