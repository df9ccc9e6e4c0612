//! Services on Unix sockets: requests and bytes reach them, connections are kept, and what is not there is told.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::wait::{ms, until};

#[test]
fn nginx_serves_by_a_path_and_its_connections_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let answer = "return 200 \"$host $connection_requests\";";
    let _nginx = Nginx::start(&format!("listen unix:{}; keepalive_timeout 60s; {answer}", path.display()));
    let gate = Binary::start(&format!(
        "workers: 1\nupstreams:\n  api: {{ endpoints: [\"unix:{0}\"] }}\n  local: {{ endpoints: [\"unix:{0}\"], host: endpoint }}\n\
         routes: [{{ match: \"/{{*rest}}\", forward: api }}, {{ match: /local, forward: local }}]",
        path.display()
    ));
    for n in 1..=5 {
        assert_eq!(gate.get("/").text(), format!("gate.test {n}"));
    }
    assert!(gate.get("/local").text().starts_with("localhost "));
    assert_eq!(gate.logged("/local")["endpoint"], path.to_str().unwrap());
    let views = gate.admin("/api/upstreams").json();
    assert_eq!(views[0]["endpoints"][0]["endpoint"], format!("unix:{}", path.display()));
    assert_eq!(views[0]["endpoints"][0]["addresses"], serde_json::json!([]));
}

#[test]
fn a_socket_that_is_not_there_is_a_service_that_is_down_until_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let gate = Binary::start(&format!(
        "workers: 4\nupstreams: {{ api: {{ endpoints: [\"unix:{}\"] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        path.display()
    ));
    let answer = gate.get("/");
    assert_eq!((answer.status(), answer.code().as_deref()), (502, Some("upstream.connect")));
    assert!(!answer.text().contains(path.to_str().unwrap()), "clients are not told of paths: {}", answer.text());
    let _nginx = Nginx::start(&format!("listen unix:{}; return 200 here;", path.display()));
    for _ in 0..20 {
        assert_eq!(gate.get("/").text(), "here");
    }
}

#[test]
fn bytes_are_carried_to_a_path_and_the_service_hears_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, outer) = (folder.path().join("inner.sock"), folder.path().join("outer.sock"));
    let service = UnixListener::bind(&inner).unwrap();
    let gate = Binary::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, tcp: db }}, {{ address: \"unix:{}\", tcp: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"unix:{}\"], proxy_protocol: v1 }} }}\n",
        outer.display(),
        inner.display()
    ));
    let mut client = gate.connect();
    client.send("hello").half_close();
    let (mut accepted, _) = service.accept().unwrap();
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).unwrap();
    let (from, to) = (client.local().port(), gate.address().port());
    assert_eq!(heard, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\nhello"));
    accepted.write_all(b"goodbye").unwrap();
    drop(accepted);
    assert_eq!(client.rest(), b"goodbye");
    // Of a client without an address nothing is known.
    let mut client = UnixStream::connect(&outer).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (mut accepted, _) = service.accept().unwrap();
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "PROXY UNKNOWN\r\nhello");
    drop(accepted);
    until(ms(5000), "the log tells of both", || {
        gate.log()
            .iter()
            .filter(|line| line["end"] == "complete" && line["endpoint"] == inner.to_str().unwrap())
            .count()
            == 2
    });
    assert!(gate.log().iter().any(|line| line["client"] == "unix"));
}

#[test]
fn what_is_no_path_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("\"unix:/{}\"", "a".repeat(107));
    for endpoint in ["\"unix:\"", "\"unix:@app\"", "\"http+unix:/a\"", &long] {
        let document =
            format!("listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ endpoints: [{endpoint}] }} }}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(2), "{endpoint}: {}", outcome.stdout);
        assert!(outcome.stderr.contains("pylon.yaml:2:"), "{}", outcome.stderr);
    }
}
