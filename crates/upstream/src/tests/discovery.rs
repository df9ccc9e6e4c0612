//! FAILURES 26, 27 and 44: sources that change, break and come back.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::fixture::{Service, get, upstream, whole, with_servers};
use crate::upstream::Upstream;

/// Waits until the upstream has these endpoints.
pub(super) async fn becomes(upstream: &Upstream, wanted: &[SocketAddr]) {
    let has = || upstream.view().endpoints.iter().flat_map(|one| one.addresses.clone()).collect::<Vec<_>>();
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    for _ in 0..400 {
        let mut has = has();
        has.sort_unstable();
        if has == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}, {:?}", has(), upstream.view().sources);
}

async fn who(upstream: &Upstream) -> String {
    let (answer, _) = get(upstream, "/").await;
    String::from_utf8(whole(answer.unwrap()).await.0.to_vec()).unwrap()
}

fn of(path: &Path) -> Arc<Upstream> {
    upstream(&format!(r#"{{"discover": {{"file": "{}"}}}}"#, path.display()))
}

fn targets(addrs: &[SocketAddr]) -> String {
    format!(
        r#"[{{"targets": {:?}, "labels": {{"zone": "here"}}}}]"#,
        addrs.iter().map(ToString::to_string).collect::<Vec<_>>()
    )
}

#[tokio::test]
async fn a_file_counts_however_it_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = ("127.0.0.21:1".parse().unwrap(), "127.0.0.22:1".parse().unwrap());
    let path = folder.path().join("targets.json");
    fs::write(&path, targets(&[a])).unwrap();
    let upstream = of(&path);
    becomes(&upstream, &[a]).await;
    assert_eq!(upstream.view().endpoints[0].zone.as_deref(), Some("here"));
    fs::write(&path, targets(&[b])).unwrap();
    becomes(&upstream, &[b]).await;
    fs::write(folder.path().join("new"), targets(&[a, b])).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    becomes(&upstream, &[a, b]).await;
    // As Kubernetes mounts a ConfigMap: the name leads through a link that is put in place of another.
    for (revision, addrs) in [("1", &[a][..]), ("2", &[b]), ("3", &[])] {
        fs::create_dir(folder.path().join(revision)).unwrap();
        fs::write(folder.path().join(revision).join("targets.json"), targets(addrs)).unwrap();
        std::os::unix::fs::symlink(revision, folder.path().join("next")).unwrap();
        fs::rename(folder.path().join("next"), folder.path().join("data")).unwrap();
        if revision == "1" {
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("data/targets.json", &path).unwrap();
        }
        becomes(&upstream, addrs).await;
    }
    let error = get(&upstream, "/").await.0.unwrap_err().to_string();
    assert!(error.contains("names none"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_broken_or_gone_leaves_the_endpoints_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.json");
    let upstream = of(&path);
    upstream.settle().await;
    assert!(upstream.view().sources[0].error.is_some() && upstream.view().endpoints.is_empty());
    let (a, b) = ("127.0.0.23:1".parse().unwrap(), "127.0.0.24:1".parse().unwrap());
    fs::write(&path, targets(&[a])).unwrap();
    becomes(&upstream, &[a]).await;
    let half = &targets(&[b])[..20];
    for broken in [half, "", "[{\"targets\": [\"nothing\"]}]"] {
        fs::write(&path, broken).unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let view = upstream.view();
        assert_eq!((view.endpoints[0].addresses.as_slice(), view.sources[0].stale), (&[a][..], true), "{broken}");
    }
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(upstream.view().endpoints[0].addresses, [a]);
    fs::write(&path, targets(&[b])).unwrap();
    becomes(&upstream, &[b]).await;
    assert!(upstream.view().sources[0].error.is_none());
}

#[tokio::test]
async fn what_is_under_way_at_an_endpoint_that_is_gone_ends_well_and_nothing_begins_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.json");
    let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&release));
    let old = Service::new(move |mut peer, _| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            while let Some((head, _)) = peer.request().await {
                if head.starts_with("GET /slow") {
                    tell.notify_one();
                    wait.notified().await;
                }
                peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").await;
            }
        }
    })
    .await;
    let new = Service::saying("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await;
    fs::write(&path, targets(&[old.addr])).unwrap();
    let upstream = of(&path);
    becomes(&upstream, &[old.addr]).await;
    assert_eq!(who(&upstream).await, "old");
    let slow = async {
        let (answer, _) = get(&upstream, "/slow").await;
        String::from_utf8(whole(answer.unwrap()).await.0.to_vec()).unwrap()
    };
    let change = async {
        asked.notified().await;
        fs::write(&path, targets(&[new.addr])).unwrap();
        becomes(&upstream, &[new.addr]).await;
        for _ in 0..4 {
            assert_eq!(who(&upstream).await, "new");
        }
        release.notify_one();
    };
    let (ended, ()) = tokio::join!(slow, change);
    assert_eq!(ended, "old");
    assert_eq!(upstream.view().endpoints.len(), 1);
    assert_eq!(old.connections(), 1, "nothing was begun there any more");
}

/// What a name server says of SRV and A records, with a TTL of a second.
#[derive(Default)]
struct Zone {
    /// Priority, weight, port, host.
    services: Vec<(u16, u16, u16, &'static str)>,
    addresses: Vec<(&'static str, Ipv4Addr)>,
}

fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// RFC 1035 §4 and RFC 2782.
fn answer(query: &[u8], zone: &Zone) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap();
    let (name, kind) = (&query[12..=name_end], query[name_end + 2]);
    let mut records = Vec::new();
    let mut record = |kind: u8, data: &[u8]| {
        records.push([&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).unwrap()], data].concat());
    };
    match kind {
        33 => zone.services.iter().for_each(|(priority, weight, port, host)| {
            let numbers = [priority.to_be_bytes(), weight.to_be_bytes(), port.to_be_bytes()].concat();
            record(33, &[numbers, encoded(host)].concat());
        }),
        1 => zone
            .addresses
            .iter()
            .filter(|(host, _)| encoded(host) == name)
            .for_each(|(_, addr)| record(1, &addr.octets())),
        _ => {}
    }
    let count = u8::try_from(records.len()).unwrap();
    let head = [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0], &query[12..name_end + 5]].concat();
    [head, records.concat()].concat()
}

#[tokio::test]
async fn records_of_type_srv_are_endpoints_with_port_and_weight_and_follow_their_change() {
    let zone = Arc::new(Mutex::new(Zone {
        services: vec![(10, 3, 81, "a.test"), (10, 1, 82, "b.test"), (20, 1, 83, "spare.test")],
        addresses: vec![
            ("a.test", Ipv4Addr::new(127, 0, 0, 31)),
            ("b.test", Ipv4Addr::new(127, 0, 0, 32)),
            ("spare.test", Ipv4Addr::new(127, 0, 0, 33)),
        ],
    }));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let said = Arc::clone(&zone);
    tokio::spawn(async move {
        let mut buf = [0_u8; 1500];
        loop {
            let (len, from) = socket.recv_from(&mut buf).await.unwrap();
            let reply = answer(&buf[..len], &said.lock());
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    let upstream = with_servers(r#"{"discover": {"srv": "_http._tcp.users.test"}}"#, &[server]);
    upstream.settle().await;
    let [a, b, spare] = ["127.0.0.31:81", "127.0.0.32:82", "127.0.0.33:83"].map(|addr| addr.parse().unwrap());
    becomes(&upstream, &[a, b, spare]).await;
    let view = upstream.view();
    let shown: Vec<_> = view.endpoints.iter().map(|one| (one.endpoint.as_str(), one.weight, one.priority)).collect();
    assert_eq!(shown, [("a.test:81", 3, 10), ("b.test:82", 1, 10), ("spare.test:83", 1, 20)]);
    assert!(view.endpoints.iter().all(|one| one.source == "srv"));
    // A host that moves.
    zone.lock().addresses[0].1 = Ipv4Addr::new(127, 0, 0, 34);
    becomes(&upstream, &["127.0.0.34:81".parse().unwrap(), b, spare]).await;
    // Both are taken away, and the one that stood by is what there is.
    zone.lock().services.drain(..2);
    becomes(&upstream, &[spare]).await;
}
