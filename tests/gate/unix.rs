//! Unix sockets: one for all workers, who its clients are, and what becomes of the file.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::command::{installed, pylon};
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};
use rustls::ClientConnection;
use serde_json::Value;

/// A gateway on a Unix socket in a folder, and a service behind it.
fn gate(folder: &Path, listener: &str, more: &str) -> (Binary, Upstream, PathBuf) {
    let (echo, path) = (Upstream::echo(), folder.join("gate.sock"));
    let gate = Binary::start(&format!(
        "listeners: [{{ address: \"unix:{}\"{listener} }}]\nworkers: 4\n\
         upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        path.display(),
        echo.url()
    ));
    (gate, echo, path)
}

/// What curl gets by a socket.
fn curl(socket: &Path, path: &str, more: &[&str]) -> String {
    let mut command = Command::new(installed("curl"));
    command.arg("-s").arg("--unix-socket").arg(socket).args(more).arg(format!("http://gate.test{path}"));
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn told(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn clients_are_served_by_a_path_and_have_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, echo, path) = gate(folder.path(), "", "");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    for n in 0..20 {
        let seen = told(&curl(&path, &format!("/{n}"), &["-H", "x-forwarded-for: 10.9.9.9"]));
        assert_eq!(seen["headers"]["x-forwarded-for"], "unknown");
        assert!(seen["headers"]["forwarded"].as_str().unwrap().starts_with("for=unknown;"), "{seen}");
    }
    assert_eq!(gate.logged("/0")["client"], "unix");
    assert_eq!((echo.requests(), gate.metric("pylon_connections_total")), (20, Some(20.0)));
    // HTTP/2 by prior knowledge, and many at a time.
    assert!(curl(&path, "/h2", &["--http2-prior-knowledge"]).contains("x-forwarded-for"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut stream = UnixStream::connect(&path).unwrap();
                    stream.write_all(&request("GET", "/many", &[("connection", "close")], b"")).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'), "{answer}");
                }
            });
        }
    });
}

#[test]
fn neither_filters_nor_trust_take_such_a_client_for_a_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let more = "trusted_proxies: [127.0.0.0/8, 0.0.0.0/8]";
    let (gate, _echo, path) = gate(folder.path(), "", more);
    let forged = ["-H", "x-forwarded-for: 203.0.113.9"];
    assert_eq!(told(&curl(&path, "/", &forged))["headers"]["x-forwarded-for"], "unknown");
    drop(gate);
    let (_gate, _echo, path) =
        self::gate(folder.path(), "", "defaults: { ip_filter: { allow: [127.0.0.0/8, \"::1\"] } }");
    assert!(curl(&path, "/", &[]).contains("ip_filter.denied"));
}

#[test]
fn nginx_before_the_socket_is_trusted_where_the_document_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, _echo, path) = gate(folder.path(), ", mode: 666", "trusted_proxies: unix");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let nginx = Nginx::start(&format!(
        "location / {{ proxy_pass http://unix:{}:; proxy_set_header X-Forwarded-For $remote_addr; }}",
        path.display()
    ));
    let mut raw = Raw::connect_from("127.0.0.9", nginx.address());
    assert_eq!(raw.get("/n").json()["headers"]["x-forwarded-for"], "127.0.0.9, unknown");
    assert_eq!(gate.logged("/n")["client"], "127.0.0.9");
}

#[test]
fn haproxy_before_the_socket_tells_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, _echo, path) = gate(folder.path(), ", proxy_protocol: unix", "");
    for version in ["send-proxy", "send-proxy-v2"] {
        let balancer = Haproxy::before(&format!("unix@{} {version}", path.display()));
        let mut raw = Raw::connect_from("127.0.0.9", balancer.address());
        assert_eq!(raw.get("/h").json()["headers"]["x-forwarded-for"], "127.0.0.9");
    }
    assert_eq!(curl(&path, "/", &[]), "");
    assert_eq!(gate.metric("pylon_proxy_headers_refused_total"), Some(1.0));
}

#[test]
fn tls_is_spoken_by_a_path_as_well() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::default());
    let path = folder.path().join("tls.sock");
    let document = format!(
        "listeners: [{{ address: \"unix:{}\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n\
         routes: [{{ match: \"/{{*rest}}\", respond: {{ body: hello }} }}]",
        path.display()
    );
    let _gate = Binary::start_with(&document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
    let mut socket = UnixStream::connect(&path).unwrap();
    let name = "gate.test".try_into().unwrap();
    let mut session = ClientConnection::new(Arc::clone(&authority.plain_client()), name).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(&request("GET", "/", &[("connection", "close")], b"")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[test]
fn the_file_goes_with_the_gate_and_what_a_killed_one_left_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, _echo, path) = gate(folder.path(), "", "");
    // Another gateway must not take the path of one that serves.
    let document = format!(
        "listeners: [{{ address: \"unix:{}\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: /, respond: 204 }}]\n",
        path.display()
    );
    std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
    let second = pylon(folder.path(), ["run", "pylon.yaml"]);
    assert!(second.code != Some(0) && second.stderr.contains("listeners[0].address"), "{}", second.stderr);
    assert!(curl(&path, "/", &[]).contains("x-forwarded-for"));
    first.process.kill();
    assert!(path.exists());
    let (mut third, _echo, path) = gate(folder.path(), "", "");
    assert!(curl(&path, "/", &[]).contains("x-forwarded-for"));
    assert_eq!(third.end(), Some(0));
    until(ms(2000), "the file is gone", || !path.exists());
}

#[test]
fn an_exchange_under_way_is_finished_though_the_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slow.sock");
    let slow = Upstream::http(|_| {
        pause(ms(400));
        Answer::text("late")
    });
    let gate = Binary::start(&format!(
        "listeners: [{{ address: \"unix:{}\" }}]\nupstreams: {{ api: {{ endpoints: [{}] }} }}\n\
         routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        path.display(),
        slow.url()
    ));
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&request("GET", "/", &[], b"")).unwrap();
    until(ms(5000), "the request is under way", || slow.connections() == 1);
    gate.process.terminate();
    until(ms(2000), "the file is gone", || !path.exists());
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("late"), "{answer}");
}
