//! What the gateway does to requests on their way out: headers and credentials of its own, which nobody else gets to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::http2_service::{Call, Http2Service};
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};

/// A token service that counts and can be away. Its tokens are `opaque-1` and so on, good for so many seconds.
struct Tokens {
    service: Upstream,
    asked: Arc<AtomicUsize>,
    away: Arc<AtomicBool>,
}

impl Tokens {
    fn new(seconds: u64) -> Self {
        let (asked, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let of_script = (Arc::clone(&asked), Arc::clone(&away));
        let service = Upstream::http(move |request| {
            let number = of_script.0.fetch_add(1, SeqCst) + 1;
            if of_script.1.load(SeqCst) {
                return Answer::new(503).body("the secret hunter2 cannot be looked up");
            }
            assert_eq!(request.field("authorization").as_deref(), Some("Basic Z2F0ZTpodW50ZXIy"));
            let token = format!("opaque-{number}");
            let answer = serde_json::json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds });
            Answer::json(&answer).after(ms(100))
        });
        Self { service, asked, away }
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn outbound(&self) -> String {
        let url = self.service.url();
        format!("outbound: {{ oauth2: {{ token_url: \"{url}/token\", client_id: gate, client_secret: file:secret }} }}")
    }
}

/// A gateway before `url`, with the secret `hunter2` in a file beside its document.
fn gate(url: &str, more: &str) -> Binary {
    let document = format!(
        "workers: 2
upstreams: {{ api: {{ endpoints: [\"{url}\"], {more} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
    );
    Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("secret"), "hunter2\n").unwrap())
}

/// Nothing of the secret, nor of what is made of it, in anything that the gateway says.
fn tells_nothing(gate: &Binary) {
    let told = ["/metrics", "/api/upstreams", "/api/routes", "/api/snapshot", "/api/recent", "/api/history"]
        .map(|path| gate.admin(path).text());
    for text in told.into_iter().chain([gate.stderr(), gate.stdout()]) {
        for secret in ["hunter2", "Z2F0ZTpodW50ZXIy", "opaque-"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn a_service_of_either_version_gets_the_gateways_credential_and_never_the_clients() {
    let (one, two) = (
        Upstream::echo(),
        Http2Service::start(|call: Call| async move {
            call.answer(200, &[], b"", &[]).await;
        }),
    );
    let more = "outbound: { basic: { user: gate, password: file:secret }, headers: { set: { x-key: file:secret }, remove: cookie } }";
    let fields = [("host", "a.test"), ("authorization", "Bearer client"), ("x_key", "forged"), ("cookie", "a=b")];
    let first = gate(&one.url(), more);
    assert_eq!(first.ask("POST", "/x", &fields, b"hello").status(), 200);
    let seen = one.last();
    assert_eq!(seen.field("authorization").as_deref(), Some("Basic Z2F0ZTpodW50ZXIy"));
    assert_eq!((seen.field("x-key").as_deref(), seen.field("cookie")), (Some("hunter2"), None));
    assert_eq!((seen.field("x_key"), seen.body.as_slice()), (None, &b"hello"[..]));
    let second = gate(&two.url(), &format!("protocol: http2, {more}"));
    for _ in 0..3 {
        assert_eq!(second.ask("GET", "/x", &fields, b"").status(), 200);
    }
    for head in two.heads() {
        let all: Vec<_> = head.headers.get_all("authorization").iter().collect();
        assert_eq!(all, ["Basic Z2F0ZTpodW50ZXIy"]);
        assert!(!head.headers.contains_key("x_key") && !head.headers.contains_key("cookie"));
    }
    tells_nothing(&first);
    tells_nothing(&second);
}

#[test]
fn fifty_requests_at_once_ask_for_one_token_which_nobody_gets_to_see() {
    let (service, tokens) = (Upstream::echo(), Tokens::new(3600));
    let gate = gate(&service.url(), &tokens.outbound());
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(gate.get("/x").status(), 200));
        }
    });
    assert_eq!((tokens.asked(), service.requests()), (1, 50));
    assert!(service.seen().iter().all(|seen| seen.field("authorization").as_deref() == Some("Bearer opaque-1")));
    // A reload that changes other things of the upstream asks for none.
    let document = format!(
        "workers: 2
upstreams: {{ api: {{ endpoints: [\"{}\"], timeout: 7s, {} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        service.url(),
        tokens.outbound()
    );
    gate.apply(&document);
    assert_eq!((gate.get("/x").status(), tokens.asked()), (200, 1));
    tells_nothing(&gate);
}

#[test]
fn without_a_token_nothing_is_sent_and_the_client_is_told_503() {
    let (service, tokens) = (Upstream::echo(), Tokens::new(3600));
    tokens.away.store(true, SeqCst);
    let gate = gate(&service.url(), &tokens.outbound());
    let answer = gate.get("/x");
    assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("upstream.credential")));
    assert!(!answer.text().contains("token"), "why is for the log: {}", answer.text());
    let line = gate.logged("/x");
    assert!(line["detail"].as_str().unwrap().contains("gave no token: the answer is 503"), "{line}");
    assert_eq!(service.connections(), 0, "nobody is even connected to");
    tells_nothing(&gate);
    tokens.away.store(false, SeqCst);
    until(ms(20_000), "requests pass again", || gate.get("/y").status() == 200);
}

#[test]
fn an_outage_of_the_token_service_is_not_noticed_while_the_last_token_is_good() {
    let (service, tokens) = (Upstream::echo(), Tokens::new(3));
    let gate = gate(&service.url(), &tokens.outbound());
    assert_eq!(gate.get("/x").status(), 200);
    tokens.away.store(true, SeqCst);
    let failed = || {
        let view: serde_json::Value = serde_json::from_str(&gate.admin("/api/upstreams").text()).unwrap();
        let text = view.to_string();
        text.contains("the answer is 503")
    };
    until(ms(10_000), "renewal fails", || {
        let before = tokens.asked();
        let answer = gate.get("/x").status();
        // The token is good for a while after the first renewal that failed.
        assert!(answer == 200 || before > 1, "{answer}");
        failed()
    });
    until(ms(10_000), "the last token has come to its end", || gate.get("/x").status() == 503);
    tokens.away.store(false, SeqCst);
    until(ms(20_000), "requests pass again", || gate.get("/x").status() == 200);
}

#[test]
fn a_401_brings_one_new_token_and_no_more() {
    let good = Arc::new(AtomicUsize::new(2));
    let taken = Arc::clone(&good);
    let service = Upstream::http(move |request| {
        let token = format!("Bearer opaque-{}", taken.load(SeqCst));
        Answer::new(if request.field("authorization").as_deref() == Some(&token) { 200 } else { 401 })
    });
    let tokens = Tokens::new(3600);
    let gate = gate(&service.url(), &tokens.outbound());
    assert_eq!((gate.get("/x").status(), gate.get("/x").status(), tokens.asked()), (401, 200, 2));
    good.store(99, SeqCst);
    for _ in 0..10 {
        assert_eq!(gate.get("/x").status(), 401);
    }
    assert_eq!(tokens.asked(), 2);
}

#[test]
fn a_token_service_has_to_be_who_it_says() {
    let (authority, other, tokens, service) =
        (Authority::default(), Authority::new("x"), Tokens::new(60), Upstream::echo());
    let secure = Terminator::before(
        tokens.service.address(),
        authority.server(&authority.issue(&["localhost"]), &["http/1.1"], false),
    );
    let gate = |root: &Authority| {
        let document = format!(
            "upstreams:
  api:
    endpoints: [\"{}\"]
    outbound:
      oauth2: {{ token_url: \"{}/token\", client_id: gate, client_secret: file:secret, tls: {{ ca: ca.pem }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
            service.url(),
            secure.url("localhost")
        );
        Binary::start_with(&document, &[], |folder| {
            std::fs::write(folder.join("secret"), "hunter2\n").unwrap();
            std::fs::write(folder.join("ca.pem"), root.pem()).unwrap();
        })
    };
    assert_eq!(gate(&authority).get("/x").status(), 200);
    assert_eq!(gate(&other).get("/x").status(), 503);
    assert_eq!((tokens.asked(), service.requests()), (1, 1));
}
