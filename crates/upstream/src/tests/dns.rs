//! FAILURES 27: names that change, fail and come back, against a scripted name server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use tokio::net::UdpSocket;

use super::fixture::{Peer, Service, carried, get, whole, with_servers};
use crate::pool::Pool;
use crate::upstream::Upstream;

/// What the server says: A records with a TTL of one second, or SERVFAIL for none.
type Zone = Arc<Mutex<Option<Vec<Ipv4Addr>>>>;

async fn name_server(zone: &Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let zone = Arc::clone(zone);
    tokio::spawn(async move {
        let mut buf = [0_u8; 1500];
        loop {
            let (len, from) = socket.recv_from(&mut buf).await.unwrap();
            let reply = answer(&buf[..len], zone.lock().as_deref());
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    addr
}

/// RFC 1035 §4: the question again, and behind it one record for each address when it asks for A.
fn answer(query: &[u8], addrs: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap();
    let question = &query[12..name_end + 5];
    let wants_a = query[name_end + 1..name_end + 3] == [0, 1];
    let records = if wants_a { addrs.unwrap_or_default() } else { &[] };
    let mut reply = query[..2].to_vec();
    reply.extend([
        0x81,
        if addrs.is_none() { 0x82 } else { 0x80 },
        0,
        1,
        0,
        u8::try_from(records.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    reply.extend(question);
    for addr in records {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(addr.octets());
    }
    reply
}

/// Services on one port of several loopback addresses, each saying its own.
async fn services(addrs: &[Ipv4Addr]) -> (Vec<Service>, u16) {
    let first = Service::named(SocketAddr::from((addrs[0], 0))).await;
    let port = first.addr.port();
    let mut all = vec![first];
    for addr in &addrs[1..] {
        all.push(Service::named(SocketAddr::from((*addr, port))).await);
    }
    (all, port)
}

async fn who(upstream: &Upstream) -> String {
    let (answer, _) = get(upstream, "/").await;
    String::from_utf8(whole(answer.unwrap()).await.0.to_vec()).unwrap()
}

#[tokio::test]
async fn a_change_moves_the_traffic_and_closes_what_is_gone_within_the_ttl_and_a_second() {
    let (a, b) = (Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 12));
    let (_services, port) = services(&[a, b]).await;
    for document in [
        format!(r#"{{"discover": {{"dns": "users.test:{port}"}}}}"#),
        format!(r#"{{"endpoints": ["http://users.test:{port}"]}}"#),
    ] {
        let zone: Zone = Arc::new(Mutex::new(Some(vec![a])));
        let upstream = with_servers(&document, &[name_server(&zone).await]);
        upstream.settle().await;
        assert_eq!(who(&upstream).await, a.to_string());
        assert_eq!(upstream.view().endpoints[0].idle, 1);
        *zone.lock() = Some(vec![b]);
        tokio::time::sleep(Duration::from_millis(2000)).await;
        assert_eq!(who(&upstream).await, b.to_string(), "{document}");
        let view = upstream.view();
        assert_eq!((view.endpoints.len(), view.endpoints[0].idle), (1, 1), "only the new connection idles");
        assert_eq!(view.endpoints[0].addresses, [SocketAddr::from((b, port))]);
    }
}

#[tokio::test]
async fn a_connection_dialled_while_the_addresses_change_is_not_kept() {
    let here = Ipv4Addr::new(127, 0, 0, 13);
    let (services, port) = services(&[here]).await;
    let carry = Carry::default();
    let upstream = carried(&format!(r#"{{"endpoints": ["http://{here}:{port}"]}}"#), &[], &carry);
    let pool = carry.keep(format!("{here}:{port}"), Pool::new);
    // The pool hears of other addresses first; until the new set is there, workers dial those of the old one.
    pool.allow(&["127.0.0.14:1".parse().unwrap()]);
    for dialled in 1..=2 {
        assert_eq!(who(&upstream).await, here.to_string());
        assert_eq!((pool.idle(), services[0].connections()), (0, dialled));
    }
}

#[tokio::test]
async fn a_document_that_is_tried_shares_the_pool_of_the_one_in_force() {
    let here = Ipv4Addr::new(127, 0, 0, 13);
    let (services, port) = services(&[here]).await;
    let carry = Carry::default();
    let document = format!(r#"{{"endpoints": ["http://{here}:{port}"]}}"#);
    let (stable, candidate) = (carried(&document, &[], &carry), carried(&document, &[], &carry.fork()));
    for upstream in [&stable, &candidate, &stable] {
        assert_eq!(who(upstream).await, here.to_string());
    }
    assert_eq!(services[0].connections(), 1);
}

/// Answers each request of HTTP/2 by nothing.
async fn serve_http2(peer: Peer, _: usize) {
    let mut connection = h2::server::handshake(peer.stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_response(http::Response::new(()), true).unwrap();
    }
}

#[tokio::test]
async fn nor_is_one_of_http2() {
    let service = Service::new(serve_http2).await;
    let at = service.addr;
    let carry = Carry::default();
    let upstream = carried(&format!(r#"{{"endpoints": ["http://{at}"], "protocol": "http2"}}"#), &[], &carry);
    let pool = carry.keep(format!("{at} http2"), Pool::new);
    assert_eq!(get(&upstream, "/").await.0.unwrap().status(), 200);
    assert_eq!((pool.idle(), service.connections()), (1, 1));
    pool.allow(&["127.0.0.14:1".parse().unwrap()]);
    for dialled in 2..=3 {
        assert_eq!(get(&upstream, "/").await.0.unwrap().status(), 200);
        assert_eq!((pool.idle(), service.connections()), (0, dialled));
    }
}

#[tokio::test]
async fn a_server_that_fails_keeps_the_last_good_for_as_long_as_is_written() {
    let a = Ipv4Addr::new(127, 0, 0, 13);
    let (_services, port) = services(&[a]).await;
    let zone: Zone = Arc::new(Mutex::new(Some(vec![a])));
    let document = format!(r#"{{"discover": {{"dns": "users.test:{port}", "keep": "2500ms"}}}}"#);
    let upstream = with_servers(&document, &[name_server(&zone).await]);
    upstream.settle().await;
    *zone.lock() = None;
    tokio::time::sleep(Duration::from_millis(1800)).await;
    let name = &upstream.view().sources[0];
    assert!(name.stale && name.error.is_some(), "{name:?}");
    assert_eq!(who(&upstream).await, a.to_string());
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert!(get(&upstream, "/").await.0.is_err());
    assert!(upstream.view().endpoints.is_empty());
}

#[tokio::test]
async fn a_name_that_is_unknown_at_first_is_used_once_it_is_known() {
    let (a, b) = (Ipv4Addr::new(127, 0, 0, 14), Ipv4Addr::new(127, 0, 0, 15));
    let (_services, port) = services(&[a, b]).await;
    let zone: Zone = Arc::default();
    let document = format!(r#"{{"discover": {{"dns": "users.test:{port}"}}}}"#);
    let upstream = with_servers(&document, &[name_server(&zone).await]);
    upstream.settle().await;
    assert!(get(&upstream, "/").await.0.is_err());
    *zone.lock() = Some(vec![a, b]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut seen = [who(&upstream).await, who(&upstream).await];
    seen.sort_unstable();
    assert_eq!(seen, [a.to_string(), b.to_string()], "each address is an endpoint");
}
