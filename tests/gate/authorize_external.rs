//! Services that say who may pass, by the real program: what they are told, what they can do, and that nothing that goes wrong with
//! them is a yes. Failures 1, 7 and 8.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use pylon_policy::protobuf::{Value, Writer, fields};
use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::http2_service::{Call, Http2Service};
use pylon_testkit::message::Message;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};

/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(2000);

fn document(service: &Upstream, auth: &str, external: &str, more: &str) -> String {
    format!(
        "workers: 2\nupstreams:\n  api: {{ endpoints: [\"{}\"] }}\n  auth: {{ endpoints: [\"{auth}\"] }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    external: {external}\n{more}",
        service.url()
    )
}

/// Lets `Bearer good` pass as ann, sends browsers to a login, and turns away all others.
fn judge(request: &Message) -> Answer {
    match request.field("authorization").as_deref() {
        Some("Bearer good") => Answer::new(204).field("x-user", "ann").field("x-secret", "kept"),
        Some("Bearer nameless") => Answer::new(200).body("yes"),
        Some("Browser") => {
            Answer::new(302).field("location", "https://id.example/login").field("set-cookie", "state=1")
        }
        Some("Bearer large") => Answer::new(403).field("content-type", "text/plain").body("x".repeat(200_000)),
        Some(_) => Answer::new(401)
            .field("www-authenticate", "Bearer")
            .field("x-inner", "1")
            .field("content-type", "text/plain")
            .body("go away"),
        None => Answer::new(403),
    }
}

const HTTP: &str = "{ http: auth, path: /verify, headers: [authorization], copy: [x-user], timeout: 500ms }";

#[test]
fn a_service_is_told_of_a_request_and_what_it_says_is_done() {
    let (service, auth) = (Upstream::named("x"), Upstream::http(judge));
    let gate = Binary::start(&document(&service, &auth.url(), HTTP, "    rewrite: /inner/{rest}\n"));
    let ask =
        |credential: &str| gate.ask("POST", "/a?b=1", &[("authorization", credential), ("x-tenant", "t")], b"body");
    assert_eq!(ask("Bearer good").status(), 200);
    let asked = auth.last();
    assert_eq!((asked.method(), asked.target(), asked.text().as_str()), ("GET", "/verify", ""));
    for (name, value) in [
        ("authorization", "Bearer good"),
        ("x-original-method", "POST"),
        ("x-original-uri", "/a?b=1"),
        ("x-sent-uri", "/inner/a?b=1"),
        ("x-original-client", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-uri", "/a?b=1"),
        ("x-forwarded-method", "POST"),
    ] {
        assert_eq!(asked.field(name).as_deref(), Some(value), "{name}");
    }
    assert!(asked.field("x-tenant").is_none() && asked.field("host") == Some(auth.address().to_string()));
    let passed = service.last();
    assert_eq!((passed.field("x-user").as_deref(), passed.text().as_str()), (Some("ann"), "body"));
    assert_eq!((passed.field("x-secret"), passed.target()), (None, "/inner/a?b=1"));
    let refused = ask("Bearer bad");
    assert_eq!((refused.status(), refused.text().as_str()), (401, "go away"));
    assert_eq!((refused.field("www-authenticate").as_deref(), refused.field("x-inner")), (Some("Bearer"), None));
    let login = ask("Browser");
    assert_eq!((login.status(), login.field("location").as_deref()), (302, Some("https://id.example/login")));
    assert_eq!(login.field("set-cookie").as_deref(), Some("state=1"));
    let large = ask("Bearer large");
    assert_eq!((large.status(), large.code().as_deref()), (403, Some("external.denied")));
    assert_eq!(gate.get("/none").code().as_deref(), Some("external.denied"));
    assert_eq!(gate.logged("/none")["reason"], "external.denied");
    assert_eq!(service.requests(), 1);
}

/// Failure 8: the inbound copy goes, also where the service sets nothing.
#[test]
fn a_client_cannot_say_of_itself_what_the_service_would() {
    let (service, auth) = (Upstream::named("x"), Upstream::http(judge));
    let gate = Binary::start(&document(&service, &auth.url(), HTTP, ""));
    for credential in ["Bearer good", "Bearer nameless"] {
        let fields = [
            ("authorization", credential),
            ("x-user", "root"),
            ("X_User", "root"),
            ("x_user", "root"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-user"),
            ("connection", "x-user"),
        ];
        let body = b"3\r\nabc\r\n0\r\nx-user: root\r\nX_User: root\r\n\r\n";
        assert_eq!(gate.ask("POST", "/", &fields, body).status(), 200, "{credential}");
        let seen = service.last();
        let user = (credential == "Bearer good").then(|| "ann".to_owned());
        assert_eq!((seen.field("x-user"), seen.field("x_user"), seen.text()), (user, None, "abc".to_owned()));
        assert_eq!((seen.trailer("x-user"), seen.trailer("x_user")), (None, None));
    }
}

/// Failure 1: nothing that is not a yes is one.
#[test]
fn a_service_that_is_not_well_lets_nobody_pass() {
    let service = Upstream::named("x");
    for (what, auth) in [
        ("it fails", Upstream::http(|_| Answer::new(500))),
        ("it is overloaded", Upstream::http(|_| Answer::new(503).field("location", "/"))),
        ("it says nothing new", Upstream::http(|_| Answer::new(304))),
        ("it sends nowhere", Upstream::http(|_| Answer::new(302))),
        ("it is silent", Upstream::script(|peer| drop((peer.request(), peer.pause(ms(2000)))))),
        ("it hangs up", Upstream::script(|peer| drop(peer.request()))),
        (
            "it talks rubbish",
            Upstream::script(|peer| {
                let _ = peer.request();
                let _ = peer.send(b"200 OK\r\n\r\n");
            }),
        ),
        (
            "it breaks off",
            Upstream::script(|peer| {
                let _ = peer.request();
                let _ = peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
            }),
        ),
        (
            "it does not end",
            Upstream::script(|peer| {
                let _ = peer.request();
                let _ = peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
                peer.pause(ms(2000));
            }),
        ),
    ] {
        let gate = Binary::start(&document(&service, &auth.url(), HTTP, ""));
        let began = now();
        let answer = gate.get("/x");
        assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("external.unavailable")), "{what}");
        assert!(began.elapsed() < ms(500) + SLACK, "{what}: {:?}", began.elapsed());
    }
    let gate = Binary::start(&document(&service, &format!("http://{}", Upstream::nobody()), HTTP, ""));
    assert_eq!(gate.get("/x").code().as_deref(), Some("external.unavailable"));
    assert_eq!(service.requests(), 0);
}

#[test]
fn a_service_that_freezes_or_dies_lets_nobody_pass_until_it_is_back() {
    let service = Upstream::named("x");
    let auth = Nginx::start("location / { return 204; }");
    let gate = Binary::start(&document(&service, &format!("http://{}", auth.address()), HTTP, ""));
    assert_eq!(gate.get("/x").status(), 200);
    auth.process.freeze();
    for _ in 0..4 {
        assert_eq!(gate.get("/x").code().as_deref(), Some("external.unavailable"));
    }
    auth.process.thaw();
    until(ms(10_000), "it answers again", || gate.get("/x").status() == 200);
    let passed = service.requests();
    drop(auth);
    for _ in 0..4 {
        assert_eq!(gate.get("/x").code().as_deref(), Some("external.unavailable"));
    }
    assert_eq!(service.requests(), passed);
}

/// Failure 1: no mistake in what is written opens the route.
#[test]
fn a_document_that_asks_wrongly_is_refused_and_the_one_before_keeps_guarding() {
    let (service, auth) = (Upstream::named("x"), Upstream::http(judge));
    let written = "{ http: auth, path: /verify, headers: [authorization], copy: [x-user], answer: [location], timeout: 500ms, cache: { ttl: 10s, by: [authorization, path] } }";
    let right = document(&service, &auth.url(), written, "");
    let gate = Binary::start(&right);
    for (from, to) in [
        ("external:", "externals:"),
        ("{ http: auth,", "{ htp: auth,"),
        ("{ http: auth,", "{ http: aut,"),
        ("{ http: auth,", "{ http: ,"),
        ("{ http: auth,", "{"),
        ("{ http: auth,", "{ http: auth, grpc: auth,"),
        ("{ http: auth, path: /verify,", "{ grpc: auth,"),
        ("path: /verify", "path: verify"),
        ("path: /verify", "paths: /verify"),
        ("headers: [authorization]", "headers: [authorization, cookie]"),
        ("headers: [authorization]", "headers: [host]"),
        ("headers: [authorization]", "header: [authorization]"),
        ("copy: [x-user]", "copy: [x user]"),
        ("copy: [x-user]", "copy: [x-forwarded-for]"),
        ("copy: [x-user]", "copies: [x-user]"),
        ("answer: [location]", "answer: [transfer-encoding]"),
        ("timeout: 500ms", "timeout: 0s"),
        ("timeout: 500ms", "timeout: 5m"),
        ("timeout: 500ms", "timeout: 500"),
        ("ttl: 10s", "ttl: 0s"),
        ("ttl: 10s", "ttl: 1h"),
        ("ttl: 10s, ", ""),
        ("by: [authorization, path]", "by: [path]"),
        ("by: [authorization, path]", "by: []"),
        ("cache: {", "cache: { if_down: allow,"),
        ("  auth: { endpoints", "  oath: { endpoints"),
        (&format!("auth: {{ endpoints: [\"{}\"] }}", auth.url()), "auth: { endpoints: [\"tcp://127.0.0.1:1\"] }"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{from} → {to}");
        assert_eq!(gate.get("/x").status(), 403, "{to}");
    }
    assert_eq!(service.requests(), 0);
}

#[test]
fn a_yes_counts_for_requests_that_are_alike_and_a_no_for_one() {
    let service = Upstream::named("x");
    let auth = Upstream::http(|request| judge(request).after(ms(200)));
    let external = "{ http: auth, headers: [authorization], copy: [x-user], timeout: 5s, cache: { ttl: 1m, by: [authorization, path] } }";
    let gate = Binary::start(&document(&service, &auth.url(), external, "").replace("workers: 2", "workers: 1"));
    let ask = |path: &str, credential: &str| gate.ask("GET", path, &[("authorization", credential)], b"").status();
    // All at once: one question.
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| ask("/a", "Bearer good"))).collect();
        assert!(all.into_iter().all(|one| one.join().unwrap() == 200));
    });
    assert_eq!(auth.requests(), 1);
    assert!(service.seen().iter().all(|seen| seen.field("x-user").as_deref() == Some("ann")));
    assert_eq!((ask("/a", "Bearer good"), auth.requests()), (200, 1));
    assert_eq!((ask("/b", "Bearer good"), auth.requests()), (200, 2));
    assert_eq!((ask("/a", "Bearer bad"), ask("/a", "Bearer bad"), auth.requests()), (401, 401, 4));
    // With none of what is named, nobody is like anybody.
    assert_eq!((gate.get("/a").status(), gate.get("/a").status(), auth.requests()), (403, 403, 6));
    // What has gone wrong is not remembered, and what was allowed before still is.
    drop(auth);
    assert_eq!((ask("/a", "Bearer good"), ask("/c", "Bearer good")), (200, 503));
}

#[test]
fn a_caller_is_told_to_the_service_and_may_be_nobody() {
    let (service, auth) = (Upstream::named("x"), Upstream::http(|_| Answer::new(200)));
    // `printf key-of-shop | sha256sum`.
    let key = "sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d";
    let consumers = format!("consumers: {{ shop-app: {{ groups: [a, b], plan: gold, keys: \"{key}\" }} }}\n");
    let both = document(&service, &auth.url(), "{ http: auth }", "    api_key: x-api-key\n");
    let gate = Binary::start(&(consumers + &both));
    let forged = [("x-api-key", "key-of-shop"), ("x-caller-subject", "root"), ("x-caller-plan", "x")];
    assert_eq!(gate.ask("GET", "/x", &forged, b"").status(), 200);
    let asked = auth.last();
    for (name, value) in
        [("subject", "shop-app"), ("consumer", "shop-app"), ("plan", "gold"), ("groups", "a,b"), ("by", "api_key")]
    {
        assert_eq!(asked.field(&format!("x-caller-{name}")).as_deref(), Some(value), "{name}");
    }
    // The key is the gateway's business; nobody who has none gets as far as the service.
    assert!(asked.field("x-api-key").is_none());
    assert_eq!((gate.get("/y").status(), auth.requests()), (401, 1));
}

#[test]
fn in_shadow_a_service_is_asked_and_nothing_that_it_says_counts() {
    let (service, auth) = (Upstream::named("x"), Upstream::http(judge));
    let gate = Binary::start(&document(&service, &auth.url(), HTTP, "    shadow: external\n"));
    assert_eq!(gate.ask("GET", "/x", &[("authorization", "Bearer bad")], b"").status(), 200);
    let told = gate.logged("/x");
    assert_eq!(told["shadow"][0]["code"], "external.denied");
    assert!(told["reason"].is_null(), "{told}");
}

// gRPC: what comes is read by the same reader of fields that the gateway has, and what goes is put together here by hand.

fn field<'m>(message: &'m [u8], path: &[u32]) -> Vec<&'m [u8]> {
    let [first, rest @ ..] = path else { return vec![message] };
    let inner = fields(message).map(Result::unwrap).filter_map(|found| match found {
        (number, Value::Bytes(inner)) if number == *first => Some(inner),
        _ => None,
    });
    inner.flat_map(|inner| field(inner, rest)).collect()
}

fn text(message: &[u8], path: &[u32]) -> String {
    String::from_utf8(field(message, path).concat()).unwrap()
}

/// The entries of a map.
fn entries(message: &[u8], path: &[u32]) -> Vec<(String, String)> {
    field(message, path).into_iter().map(|entry| (text(entry, &[1]), text(entry, &[2]))).collect()
}

fn header(name: &str, value: &str) -> impl Fn(&mut Writer) {
    move |option| {
        option.message(1, |header| {
            header.bytes(1, name.as_bytes());
            header.bytes(2, value.as_bytes());
        });
    }
}

fn framed(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut message = Writer::default();
    write(&mut message);
    let message = message.into_bytes();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}

/// Lets `Bearer good` pass, and denies all else.
async fn check(mut call: Call, asked: Arc<std::sync::Mutex<Vec<Bytes>>>) {
    let (body, _) = call.body().await.unwrap();
    assert_eq!((body[0], u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize), (0, body.len() - 5));
    let message = Bytes::from(body).slice(5..);
    let headers = entries(&message, &[1, 4, 2, 3]);
    let good = headers.contains(&("authorization".to_owned(), "Bearer good".to_owned()));
    asked.lock().unwrap().push(message);
    let answer = framed(|answer| {
        if good {
            answer.message(1, |_| {});
            answer.message(3, |ok| {
                ok.message(2, header("x-user", "ann"));
                ok.message(2, header("x-not-copied", "1"));
                ok.bytes(5, b"authorization");
            });
        } else {
            answer.message(1, |status| status.number(1, 16));
            answer.message(2, |denied| {
                denied.message(1, |status| status.number(1, 401));
                denied.message(2, header("www-authenticate", "Bearer"));
                denied.bytes(3, b"who are you");
            });
        }
    });
    call.answer(200, &[("content-type", "application/grpc")], &answer, &[("grpc-status", "0")]).await;
}

fn grpc_document(service: &Upstream, auth: &str) -> String {
    let written = "{ grpc: auth, headers: [authorization, cookie], copy: [x-user], timeout: 1s }";
    document(service, auth, written, "    rewrite: /inner/{rest}\n")
        .replace("] }\nroutes", "], protocol: http2 }\nroutes")
}

#[test]
fn envoys_authorization_service_is_asked_and_heard() {
    let asked = Arc::default();
    let of_script = Arc::clone(&asked);
    let auth = Http2Service::start(move |call| check(call, Arc::clone(&of_script)));
    let service = Upstream::named("x");
    let gate = Binary::start(&grpc_document(&service, &auth.url()));
    let fields =
        [("authorization", "Bearer good"), ("cookie", "a=1"), ("x-user", "root"), ("x_user", "root"), ("x-other", "1")];
    assert_eq!(gate.ask("POST", "/a?b=1", &fields, b"body").status(), 200);
    let head = auth.heads().remove(0);
    assert!(head.start.ends_with("/envoy.service.auth.v3.Authorization/Check") && head.start.starts_with("POST "));
    assert_eq!(
        (&head.headers["content-type"], &head.headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    let message = asked.lock().unwrap()[0].clone();
    let http = [1, 4, 2];
    let of_http = |number| text(&message, &[&http[..], &[number]].concat());
    assert_eq!(
        (of_http(2), of_http(4), of_http(6), of_http(10)),
        ("POST".into(), "/a?b=1".into(), "http".into(), "HTTP/1.1".into())
    );
    assert_eq!(of_http(5), "gate.test");
    let headers = entries(&message, &[1, 4, 2, 3]);
    assert_eq!(headers, [("authorization".into(), "Bearer good".into()), ("cookie".into(), "a=1".to_owned())]);
    assert_eq!(text(&message, &[1, 1, 1, 1, 2]), "127.0.0.1");
    assert_eq!(entries(&message, &[1, 10]), [("sent_path".to_owned(), "/inner/a?b=1".to_owned())]);
    let seen = service.last();
    assert_eq!(
        (seen.field("x-user").as_deref(), seen.field("x_user"), seen.field("authorization")),
        (Some("ann"), None, None)
    );
    assert!(seen.field("x-not-copied").is_none());
    let refused = gate.ask("GET", "/b", &[("authorization", "Bearer bad")], b"");
    assert_eq!((refused.status(), refused.text().as_str()), (401, "who are you"));
    assert_eq!(refused.field("www-authenticate").as_deref(), Some("Bearer"));
    assert_eq!(service.requests(), 1);
}

/// Failure 1, by gRPC.
#[test]
fn an_answer_of_grpc_that_is_not_a_yes_lets_nobody_pass() {
    let service = Upstream::named("x");
    let yes = framed(|answer| answer.message(1, |_| {}));
    let kinds = 9;
    let number = Arc::new(AtomicUsize::new(0));
    let of_script = Arc::clone(&number);
    let auth = Http2Service::start(move |mut call| {
        let (yes, kind) = (yes.clone(), of_script.load(SeqCst));
        async move {
            let _ = call.body().await;
            let grpc = [("content-type", "application/grpc")];
            match kind {
                0 => call.answer(200, &grpc, &[], &[("grpc-status", "0")]).await,
                1 => call.answer(200, &grpc, &yes, &[("grpc-status", "13")]).await,
                2 => call.answer(200, &grpc, &yes, &[]).await,
                3 => call.answer(503, &grpc, &yes, &[("grpc-status", "0")]).await,
                4 => call.answer(200, &grpc, &yes[..yes.len() - 1], &[("grpc-status", "0")]).await,
                5 => call.answer(200, &grpc, b"\0\0\0\0\0", &[("grpc-status", "0")]).await,
                6 => call.answer(200, &grpc, &vec![0; 200_000], &[("grpc-status", "0")]).await,
                7 => call.reset(h2::Reason::INTERNAL_ERROR),
                _ => call.pause(ms(3000)).await,
            }
        }
    });
    let gate = Binary::start(&grpc_document(&service, &auth.url()));
    for kind in 0..kinds {
        number.store(kind, SeqCst);
        let answer = gate.get("/x");
        assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("external.unavailable")), "{kind}");
    }
    assert_eq!(service.requests(), 0);
}
