//! Tokens that one gateway signs and another one checks, by keys that it fetches from the first.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;

use crate::upgrade::upgraded;

const PATIENCE: Duration = Duration::from_secs(20);
/// `printf key-of-shop | sha256sum`.
const HASH: &str = "sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d";
const KEYS: &str = "/.well-known/jwks.json";

/// The gateway in front, before a service at `url`.
fn outer(url: &str, mint: &str) -> String {
    format!(
        "workers: 2\nconsumers: {{ shop-app: {{ groups: partners, keys: [\"{HASH}\"] }} }}\n\
         upstreams: {{ api: {{ endpoints: [\"{url}\"] }} }}\n\
         routes:\n  - {{ match: \"/{{*rest}}\", forward: api, api_key: x-api-key, mint: {{ issuer: gate, audience: inner{mint} }} }}\n  \
         - {{ match: \"/open/{{*rest}}\", forward: api, api_key: x-api-key, anonymous: allow, mint: {{ issuer: gate, audience: inner{mint} }} }}\n"
    )
}

/// The gateway behind, which knows callers by tokens of the one in front.
fn inner(service: &Upstream, outer: &Binary) -> String {
    format!(
        "workers: 2\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    require: {{ any_group: partners }}\n    \
         jwt: {{ issuer: gate, audience: inner, jwks: \"http://{}{KEYS}\", groups_claim: groups, cool_down: 1s, headers: {{ x-user: subject }} }}\n",
        service.url(),
        outer.address()
    )
}

/// Both of them, with the same `mint` in front, and the service behind.
fn chain(mint: &str, prepare: impl FnOnce(&std::path::Path)) -> (Binary, Binary, Upstream) {
    let service = Upstream::named("x");
    let front = Binary::start_with(&outer(&service.url(), mint), &[], prepare);
    let behind = Binary::start(&inner(&service, &front));
    front.apply(&outer(&format!("http://{}", behind.address()), mint));
    (front, behind, service)
}

fn ask(front: &Binary, path: &str) -> u16 {
    front.ask("GET", path, &[("x-api-key", "key-of-shop")], b"").status()
}

fn published(front: &Binary) -> Vec<String> {
    let answer = front.get(KEYS);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let set = answer.json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_service_knows_the_caller_by_a_token_that_it_checks_by_fetched_keys() {
    let (front, behind, service) = chain("", |_| {});
    for number in 0..8 {
        assert_eq!(ask(&front, &format!("/{number}")), 200);
    }
    for request in service.seen() {
        assert_eq!(request.field("x-user").as_deref(), Some("shop-app"));
        assert!(request.field("authorization").is_none() && request.field("x-api-key").is_none());
    }
    assert_eq!(behind.logged("/0")["caller"], "shop-app");
    // Who has not proved to be anybody gets no token, also with one of its own.
    let forged = front.ask("GET", "/open/x", &[("authorization", "Bearer a.b.c")], b"");
    assert_eq!((forged.status(), front.get("/open/y").status()), (401, 401));
    assert_eq!(behind.logged("/open/x")["reason"], "caller.missing");
    assert_eq!(service.requests(), 8);
}

#[test]
fn published_keys_are_a_route_like_any_other() {
    let (front, _behind, _service) = chain("", |_| {});
    let answer = front.get(KEYS);
    assert_eq!(answer.field("content-type").as_deref(), Some("application/jwk-set+json"));
    assert_eq!(answer.field("cache-control").as_deref(), Some("public, max-age=300"));
    let head = front.ask("HEAD", KEYS, &[], b"");
    assert_eq!((head.status(), head.text().as_str()), (200, ""));
    assert_eq!(front.logged_with(KEYS, "method", "HEAD")["route"], "own:jwks");
    let routes = front.admin("/api/routes").text();
    assert!(routes.contains("own:jwks") && routes.contains("answer by `mint` itself"), "{routes}");
    assert!(front.admin("/metrics").text().contains("route=\"own:jwks\""));
    // The route of the document that takes its path is an error, and the document before goes on.
    let taken = outer("http://127.0.0.1:1", "").replace("match: \"/open/{*rest}\"", "match: /.well-known/jwks.json");
    front.write(&taken);
    let refused = front.reload();
    assert_ne!(refused.status(), 200);
    assert!(refused.text().contains("which a route of the document takes"), "{}", refused.text());
    assert_eq!(front.get(KEYS).status(), 200);
}

#[test]
fn keys_are_replaced_without_a_failed_request() {
    let authority = Authority::new("keys");
    let (front, _behind, _service) = chain(", keys: \"file:a.key\"", |folder| {
        for name in ["a", "b"] {
            authority.issue(&["a.test"]).write(folder, name);
        }
    });
    let address = front.address();
    let (over, url) = (AtomicBool::new(false), front_upstream(&front));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut raw, mut asked) = (pylon_testkit::client::Raw::connect(address), 0);
            while !over.load(SeqCst) {
                let answer = raw.ask("GET", "/x", &[("host", "a"), ("x-api-key", "key-of-shop")], b"");
                assert_eq!(answer.status(), 200, "request {asked}: {}", answer.text());
                asked += 1;
            }
            asked
        });
        let first = published(&front);
        for keys in ["[\"file:a.key\", \"file:b.key\"]", "[\"file:b.key\", \"file:a.key\"]", "\"file:b.key\""] {
            front.apply(&outer(&url, &format!(", keys: {keys}")));
            assert_eq!((ask(&front, "/y"), ask(&front, "/z")), (200, 200));
        }
        // What the first key has signed may still be about.
        wait::until(PATIENCE, "the key before stays published", || published(&front).contains(&first[0]));
        assert_eq!(published(&front).len(), 2);
        over.store(true, SeqCst);
        assert!(load.join().unwrap() > 0);
    });
}

#[test]
fn keys_that_the_gateway_makes_outlive_its_process() {
    let (service, state) = (Upstream::named("x"), tempfile::tempdir().unwrap());
    let folder = state.path().to_str().unwrap().to_owned();
    let start = |mint: &str| {
        let arguments = ["--state", folder.as_str(), "--drain-delay", "off", "--upgrade-socket", "upgrade.sock"];
        Binary::start_with(&outer(&service.url(), mint), &arguments, |_| {})
    };
    // The head of a token, which names the key that has signed it.
    let signed = |front: &Binary| {
        assert_eq!(ask(front, "/x"), 200);
        let token = service.seen().last().unwrap().field("authorization").unwrap();
        token.split_once('.').unwrap().0.to_owned()
    };
    let mut front = start("");
    let (first, head) = (published(&front), signed(&front));
    assert_eq!((first.len(), front.end()), (1, Some(0)));
    // After a restart, and after an upgrade.
    let mut front = start("");
    assert_eq!((published(&front), signed(&front)), (first.clone(), head.clone()));
    let heir = upgraded(front.folder(), &[]);
    assert_eq!(front.process.code(PATIENCE), Some(0));
    assert_eq!((published(&front), signed(&front)), (first.clone(), head.clone()));
    drop(heir);
    // With other times there are other keys, and those before stay published for the life of their tokens.
    let mut front = start(", ttl: 30s");
    let second = published(&front);
    assert_eq!((second.len(), &second[1..]), (2, &first[..]));
    assert_ne!(signed(&front), head);
    assert_eq!(front.end(), Some(0));
    // What cannot be read is no reason not to serve.
    let kept = |end: &str| {
        let files = std::fs::read_dir(state.path().join("mint")).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|found| found == end)).collect::<Vec<_>>()
    };
    for file in kept("json") {
        std::fs::write(file, "{").unwrap();
    }
    let front = start(", ttl: 30s");
    let third = published(&front);
    assert!(third.len() == 1 && !second.contains(&third[0]), "{third:?}");
    assert_eq!(ask(&front, "/x"), 200);
    assert!(front.stderr().contains("keys of `mint` cannot be read"), "{}", front.stderr());
    assert_eq!(kept("damaged").len(), 1);
}

/// Where the gateway in front sends its requests.
fn front_upstream(front: &Binary) -> String {
    let document = std::fs::read_to_string(front.folder().join("pylon.yaml")).unwrap();
    let (_, rest) = document.split_once("endpoints: [\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}
