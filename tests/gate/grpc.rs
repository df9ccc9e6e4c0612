//! gRPC (failure 37): all four kinds by a real client and a real service, the status that each client is told, deadlines,
//! and the gateway's own health.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use h2::Reason;
use pylon_testkit::binary::Binary;
use pylon_testkit::http2::{Answer, Http2};
use pylon_testkit::http2_service::{Http2Service, broken_off};
use pylon_testkit::process::{Lines, Process};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, now, until};
use serde_json::{Value, json};

const CALL: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

fn gate(url: &str, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [\"{url}\"], protocol: http2, {more} }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api }}
  - {{ match: \"/closed/{{*rest}}\", forward: api, ip_filter: {{ allow: 10.0.0.0/8 }} }}
  - {{ match: \"/small/{{*rest}}\", forward: api, request_limits: {{ body: 8B }} }}
  - {{ match: \"/down/{{*rest}}\", forward: api, maintenance: true }}"
    ))
}

fn call(gate: &Binary, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let fields: Vec<_> = CALL.iter().chain(fields).copied().collect();
    Http2::connect(gate.address()).ask("POST", &format!("http://api.test{path}"), &fields, body).unwrap()
}

/// What a client of gRPC is told in the head alone.
fn refused(answer: &Answer) -> (u16, Option<String>, usize) {
    assert!(answer.trailers.is_empty(), "a refusal has no trailers beside its head");
    assert_eq!(answer.field("content-type").as_deref(), Some("application/grpc"));
    (answer.status, answer.field("grpc-status"), answer.body.len())
}

fn python(arguments: &[&str]) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = root.join("../target/test-tools/grpc");
    tools.join("grpc").exists().then(|| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", tools).arg(root.join("conformance/calls.py")).args(arguments);
        command
    })
}

#[test]
fn a_real_client_and_a_real_service_see_each_other_through_the_gateway() {
    let Some(mut command) = python(&["serve"]) else {
        eprintln!("grpcio is not there, so nothing was tested: ./test installs it where Python is");
        return;
    };
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let lines = Lines::read(child.stdout.take().unwrap());
    let _service = Process::new(child);
    let port = eventually(ms(20_000), "the service says where it listens", || lines.all().first()?.parse::<u16>().ok());
    let service = SocketAddr::from(([127, 0, 0, 1], port));
    let gate = gate(&format!("http://{service}"), "pool: { idle: 30s }");
    let output = python(&["run", &gate.address().to_string()]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let seen: Value =
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(seen["unary"], json!([true, true, true, true, true]), "{seen:#}");
    for kind in ["server_stream", "client_stream", "chat", "cancel"] {
        assert_eq!(seen[kind], json!(true), "{kind}: {seen:#}");
    }
    assert_eq!(seen["metadata"], json!([true, true, true, true]), "{seen:#}");
    assert_eq!(
        (&seen["fail"]["code"], &seen["fail"]["details"]),
        (&json!("FAILED_PRECONDITION"), &json!("caf\u{e9} %"))
    );
    assert_eq!(seen["fail"]["trailing"]["x-why"], "trailer");
    assert_eq!(seen["unknown"]["code"], "UNIMPLEMENTED", "as the service says it");
    let late = &seen["late_fail"];
    assert_eq!(
        (&late["code"], &late["details"], &late["got"]),
        (&json!("DATA_LOSS"), &json!("lost"), &json!(["first"]))
    );
    assert_eq!(seen["deadline"]["code"], "DEADLINE_EXCEEDED");
    assert!(seen["deadline"]["took"].as_f64().unwrap() < 2.0, "{seen:#}");
    let line = gate.logged("/test.Echo/Fail");
    assert_eq!((line["status"].as_u64(), line["grpc_status"].as_u64()), (Some(200), Some(9)), "{line}");
    gate.logged_with("/test.Echo/Unary", "grpc_status", 0);
}

#[test]
fn what_the_gateway_refuses_is_told_as_a_status_of_grpc() {
    let service = Http2Service::start(|call| async move {
        match call.path() {
            "/reset" => call.reset(Reason::INTERNAL_ERROR),
            "/silent" => call.pause(ms(5_000)).await,
            _ => call.answer(200, &[], b"", &[("grpc-status", "0")]).await,
        }
    });
    let gate = gate(&service.url(), "timeout: 300ms");
    let before = service.requests();
    for (path, body, status) in [
        ("/closed/x", &b""[..], "7"),
        ("/small/x", b"more than eight", "8"),
        ("/down/x", b"", "14"),
        ("/%2f%", b"", "3"),
    ] {
        let answer = call(&gate, path, &[("content-length", &body.len().to_string())], body);
        assert_eq!(refused(&answer), (200, Some(status.to_owned()), 0), "{path}");
        assert!(answer.field("grpc-message").is_some_and(|message| !message.is_empty()), "{path}");
    }
    assert_eq!(service.requests(), before);
    assert_eq!(refused(&call(&gate, "/reset", &[], b"")), (200, Some("14".to_owned()), 0));
    let late = call(&gate, "/silent", &[], b"");
    assert_eq!(refused(&late), (200, Some("4".to_owned()), 0));
    assert!(late.field("grpc-message").unwrap().contains("response timer"), "{late:?}");
    let line = gate.logged("/silent");
    assert_eq!((line["reason"].as_str(), line["grpc_status"].as_u64()), (Some("upstream.timeout"), Some(4)), "{line}");
    let gone = self::gate(&format!("http://{}", Upstream::nobody()), "");
    assert_eq!(refused(&call(&gone, "/x", &[], b"")), (200, Some("14".to_owned()), 0));
    let nowhere = Binary::start("routes: []");
    assert_eq!(refused(&call(&nowhere, "/x", &[], b"")), (200, Some("12".to_owned()), 0));
    // Whoever does not speak gRPC is told as everybody is.
    let mut client = Http2::connect(gate.address());
    let answer = client.ask("POST", "http://a/closed/x", &[("content-type", "application/json")], b"").unwrap();
    assert_eq!((answer.status, answer.field("grpc-status")), (403, None));
}

#[test]
fn the_clients_deadline_bounds_the_whole_call() {
    let service = Http2Service::start(|mut call| async move {
        if call.path() == "/head" {
            call.cancelled().await;
            return;
        }
        let mut stream = call.begin(200, &[("content-type", "application/grpc")]);
        stream.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).unwrap();
        broken_off(&mut stream).await;
    });
    let gate = gate(&service.url(), "");
    let began = now();
    let before = call(&gate, "/head", &[("grpc-timeout", "300m")], b"");
    assert_eq!(refused(&before), (200, Some("4".to_owned()), 0));
    let within = call(&gate, "/body", &[("grpc-timeout", "300m")], b"");
    assert_eq!((within.status, within.body.as_slice()), (200, &b"\0\0\0\0\x01x"[..]));
    assert_eq!(within.trailers["grpc-status"], "4", "its answer had begun: it ends by trailers");
    assert!(began.elapsed() < ms(3_000), "{:?}", began.elapsed());
    let line = gate.logged("/body");
    assert_eq!((line["end"].as_str(), line["timer"].as_str()), (Some("timeout"), Some("total")), "{line}");
}

#[test]
fn a_status_is_neither_lost_nor_made_up() {
    let service = Http2Service::start(|mut call| async move {
        let head = [("content-type", "application/grpc")];
        match call.path() {
            "/alone" => call.answer(200, &[head[0], ("grpc-status", "5"), ("grpc-message", "no")], b"", &[]).await,
            "/none" => call.answer(200, &head, b"\0\0\0\0\0", &[]).await,
            "/html" => call.answer(429, &[("content-type", "text/html")], b"<p>slow down", &[]).await,
            _ => {
                let mut stream = call.begin(200, &head);
                stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).unwrap();
                call.pause(ms(50)).await;
                stream.send_reset(Reason::ENHANCE_YOUR_CALM);
            }
        }
    });
    let gate = gate(&service.url(), "");
    let alone = call(&gate, "/alone", &[], b"");
    assert_eq!((refused(&alone), alone.field("grpc-message").as_deref()), ((200, Some("5".to_owned()), 0), Some("no")));
    let none = call(&gate, "/none", &[], b"");
    assert!(none.trailers.is_empty() && none.field("grpc-status").is_none(), "{none:?}");
    assert_eq!(call(&gate, "/html", &[], b"").status, 429);
    let mut client = Http2::connect(gate.address());
    let error = client.ask("POST", "http://a/reset", CALL, b"").unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "the code that the service gave");
    assert_eq!(gate.logged("/alone")["grpc_status"], 5);
    assert_eq!(gate.logged("/none").get("grpc_status"), None);
}

#[test]
fn the_gateways_own_health_is_asked_for_by_grpc() {
    let mut gate = Binary::start("routes: []");
    let mut client = Http2::connect(gate.admin);
    let authority = gate.admin;
    let mut ask = |method: &str, body: &[u8]| {
        client.ask("POST", &format!("http://{authority}/grpc.health.v1.Health/{method}"), CALL, body).unwrap()
    };
    let serving = ask("Check", b"\0\0\0\0\0");
    assert_eq!((serving.status, serving.body.as_slice()), (200, &b"\0\0\0\0\x02\x08\x01"[..]));
    assert_eq!(serving.trailers["grpc-status"], "0");
    let unknown = ask("Check", b"\0\0\0\0\x04\x0a\x02ab");
    assert_eq!((unknown.status, unknown.field("grpc-status").as_deref()), (200, Some("5")));
    assert_eq!(ask("Check", b"no message").field("grpc-status").as_deref(), Some("3"));
    let mut foreign = Http2::connect(authority);
    let answer = foreign.ask("POST", "http://evil.test/grpc.health.v1.Health/Check", CALL, b"\0\0\0\0\0").unwrap();
    assert_eq!(answer.status, 403, "the name of another site");
    let watch = client.open("POST", &format!("http://{authority}/grpc.health.v1.Health/Watch"), CALL, false).unwrap();
    let mut watch = watch;
    watch.sending.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).unwrap();
    let mut body = client.head(watch).unwrap().into_body();
    let first = client.wait(body.data()).unwrap().unwrap();
    assert_eq!(first.as_ref(), b"\0\0\0\0\x02\x08\x01");
    // A request that is under way keeps the gateway from ending at once.
    let mut slow = gate.connect();
    slow.send("GET / HT");
    gate.process.terminate();
    let next = client.wait(body.data()).unwrap().unwrap();
    assert_eq!(next.as_ref(), b"\0\0\0\0\x02\x08\x02", "it drains");
    slow.abort();
    until(ms(20_000), "it ends", || gate.process.ended().is_some());
}
