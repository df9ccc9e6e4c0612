//! Signed requests by the real program: what is signed arrives as it was, what was changed does not, and nothing passes twice. Failures 1 and 11.

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::issuer::Signer;
use pylon_testkit::message::Message;
use pylon_testkit::signing::{content_digest, covered, now_by, sign};
use pylon_testkit::upstream::Upstream;
use serde_json::json;

/// The algorithms of the document by those of the signers.
const ALGORITHMS: [(&str, &str); 4] =
    [("EdDSA", "ed25519"), ("ES256", "ecdsa-p256-sha256"), ("ES384", "ecdsa-p384-sha384"), ("PS512", "rsa-pss-sha512")];

const SECRET: &str = "a secret that both of them have known for long";

/// A gateway whose consumer `app` signs by all algorithms, each with a key of its name.
fn gate(service: &Upstream, more: &str) -> (Binary, Vec<(Signer, &'static str)>) {
    let mut signers: Vec<_> = ALGORITHMS.map(|(alg, name)| (Signer::new(alg, name), name)).into();
    let mut keys: Vec<_> =
        signers.iter().map(|(signer, name)| json!({ "keyid": name, "algorithm": name, "key": signer.pem() })).collect();
    signers.push((Signer::secret("HS256", SECRET.as_bytes()), "hmac-sha256"));
    keys.push(json!({ "keyid": "hmac-sha256", "algorithm": "hmac-sha256", "secret": "file:secret" }));
    let document = format!(
        "workers: 2\nconsumers: {{ app: {{ signatures: {} }} }}\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    signature: {{ headers: {{ x-consumer: consumer }}{more} }}\n",
        serde_json::to_string(&keys).unwrap(),
        service.url()
    );
    let gate = Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("secret"), SECRET).unwrap());
    (gate, signers)
}

fn send(gate: &Binary, method: &str, target: &str, fields: &[(&str, String)], body: &[u8]) -> Message {
    let fields: Vec<_> =
        [("host", "a.test")].into_iter().chain(fields.iter().map(|(name, value)| (*name, value.as_str()))).collect();
    Raw::connect(gate.address()).ask(method, target, &fields, body)
}

#[test]
fn a_request_that_is_signed_by_any_algorithm_arrives_as_it_was_and_only_once() {
    let service = Upstream::named("x");
    let (gate, signers) = gate(&service, "");
    for (number, (signer, keyid)) in signers.iter().enumerate() {
        // Signed as it is sent, whatever form the gateway brings it into.
        let fields = sign(signer, &covered("GET", "a.test", "/a/../%62", "?q=1"), &now_by(keyid, "n"));
        let answer = send(&gate, "GET", "/a/../%62?q=1", &fields, b"");
        assert_eq!(answer.status(), 200, "{keyid}: {}", answer.text());
        let seen = &service.seen()[number];
        assert_eq!((seen.target(), seen.field("x-consumer").as_deref()), ("/b?q=1", Some("app")));
        assert!(seen.field("signature").is_none() && seen.field("signature-input").is_none());
        let again = send(&gate, "GET", "/a/../%62?q=1", &fields, b"");
        assert_eq!((again.status(), again.json()["code"].as_str()), (401, Some("caller.invalid")), "{keyid}");
    }
    assert_eq!(service.requests(), signers.len());
    assert_eq!(gate.logged_with("/b?q=1", "status", 200)["identified_by"], "signature");
}

#[test]
fn a_body_arrives_as_it_was_signed_or_not_at_all() {
    let service = Upstream::named("x");
    let (gate, signers) = gate(&service, ", body: 64KiB");
    let (signer, keyid) = &signers[0];
    let body: Vec<u8> = (0..60_000_u32).map(|number| number as u8).collect();
    let signed = |nonce: &str, digest: &str| {
        let mut all = covered("POST", "a.test", "/a", "?");
        all.push(("\"content-digest\"", digest));
        let [input, signature] = sign(signer, &all, &now_by(keyid, nonce));
        [input, signature, ("content-digest", digest.to_owned())]
    };
    let digest = content_digest(&body);
    assert_eq!(send(&gate, "POST", "/a", &signed("1", &digest), &body).status(), 200);
    assert_eq!(service.seen()[0].body, body);
    let mut swapped = body.clone();
    swapped[59_999] ^= 1;
    for (nonce, other) in [("2", &swapped[..]), ("3", b""), ("4", &body[..59_999])] {
        let answer = send(&gate, "POST", "/a", &signed(nonce, &digest), other);
        assert_eq!((answer.status(), answer.json()["code"].as_str()), (401, Some("caller.invalid")), "{nonce}");
    }
    let large = vec![7; 70_000];
    assert_eq!(send(&gate, "POST", "/a", &signed("5", &content_digest(&large)), &large).status(), 413);
    // A body in chunks that was not signed for.
    let fields = sign(signer, &covered("POST", "a.test", "/a", "?"), &now_by(keyid, "6"));
    let mut raw = Raw::connect(gate.address());
    raw.send(format!(
        "POST /a HTTP/1.1\r\nhost: a.test\r\n{}: {}\r\n{}: {}\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        fields[0].0, fields[0].1, fields[1].0, fields[1].1
    ));
    assert_eq!(raw.response().status(), 401);
    assert_eq!(service.requests(), 1);
}

#[test]
fn nobody_passes_who_has_no_key() {
    let service = Upstream::named("x");
    let (gate, signers) = gate(&service, "");
    let mine = Signer::new("EdDSA", "ed25519");
    let whole = covered("GET", "a.test", "/a", "?");
    let (signer, keyid) = &signers[0];
    let good = sign(signer, &whole, &now_by(keyid, "n"));
    let confused = Signer::secret("HS256", signer.pem().as_bytes());
    for (number, fields) in [
        Vec::new(),
        sign(&mine, &whole, &now_by("ed25519", "1")).into(),
        sign(&confused, &whole, &format!("{};alg=\"hmac-sha256\"", now_by("ed25519", "2"))).into(),
        sign(signer, &whole[1..], &now_by(keyid, "3")).into(),
        vec![good[0].clone()],
        vec![good[1].clone()],
        [good.clone(), good.clone()].concat(),
        vec![good[0].clone(), ("signature", "sig=:AAAA:".to_owned())],
    ]
    .iter()
    .enumerate()
    {
        let answer = send(&gate, "GET", "/a", fields, b"");
        assert_eq!(answer.status(), 401, "{number}: {}", answer.text());
        assert!(answer.field("www-authenticate").is_some_and(|it| it.starts_with("Signature ")), "{number}");
    }
    assert_eq!(send(&gate, "POST", "/a", &good, b"").status(), 401);
    assert_eq!(service.requests(), 0);
    assert_eq!(send(&gate, "GET", "/a", &good, b"").status(), 200, "none of it has used the signature up");
}

/// Failure 1: mistakes never open a route.
#[test]
fn a_document_whose_signatures_are_wrong_is_refused_and_the_one_before_keeps_guarding() {
    let (service, signer) = (Upstream::named("x"), Signer::new("EdDSA", "k"));
    let pem = signer.pem().replace('\n', "\\n");
    let right = format!(
        "workers: 2\nconsumers: {{ app: {{ signatures: [{{ keyid: k, algorithm: ed25519, key: \"{pem}\" }}] }} }}\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    signature: {{ components: [\"@method\", \"@path\"], max_age: 2m, leeway: 10s, body: 1KiB, once: true, tag: shop, headers: {{ x-a: consumer }}, forward: false }}\n",
        service.url()
    );
    let gate = Binary::start(&right);
    let mut number = 0;
    let mut guarded = |gate: &Binary, what: &str, passes: bool| {
        number += 1;
        let params = format!("{};tag=\"shop\"", now_by("k", &number.to_string()));
        let good = sign(&signer, &covered("GET", "a.test", "/x", "?"), &params);
        let status = send(gate, "GET", "/x", &good, b"").status();
        assert_eq!((gate.get("/x").status(), status), (401, if passes { 200 } else { 401 }), "{what}");
    };
    guarded(&gate, "nothing", true);
    for key in [
        "signatures:",
        "keyid:",
        "algorithm:",
        "key:",
        "signature:",
        "components:",
        "max_age:",
        "leeway:",
        "body:",
        "once:",
        "tag:",
        "headers:",
        "forward:",
    ] {
        // The last of its name: `forward` is also the action of the route.
        let at = right.rfind(&format!(" {key}")).unwrap() + 1;
        let typo = format!("{}x{}", &right[..at], &right[at..]);
        gate.write(&typo);
        assert_eq!(gate.reload().status(), 422, "{key}: {typo}");
        guarded(&gate, key, true);
    }
    for (from, to) in [
        ("algorithm: ed25519", "algorithm: ecdsa-p256-sha256"),
        ("algorithm: ed25519", "algorithm: none"),
        ("algorithm: ed25519", "algorithm: hmac-sha256"),
        ("algorithm: ed25519", "algorithm: hmac-sha256, secret: env:NOT_THERE_AT_ALL"),
        ("keyid: k", "keyid: \"\""),
        ("BEGIN PUBLIC", "BEGIN PRIVATE"),
        ("signatures: [", "metadata: {}, certificates: [], signatures: [{}, "),
        ("[\"@method\", \"@path\"]", "[]"),
        ("[\"@method\", \"@path\"]", "[\"@methods\"]"),
        ("max_age: 2m", "max_age: 2d"),
        ("leeway: 10s", "leeway: 10m"),
        ("body: 1KiB", "body: 1GiB"),
        ("once: true", "once: \"yes\""),
        ("tag: shop", "tag: \"\""),
        ("x-a: consumer", "x-a: consumers"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{to}");
        guarded(&gate, to, true);
    }
    // What can be meant, and is not what the signatures are.
    for (from, to) in [
        ("keyid: k", "keyid: l"),
        ("tag: shop", "tag: shops"),
        ("\"@path\"]", "\"@path\", x-tenant]"),
        ("\"@path\"]", "content-digest]"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.apply(&wrong);
        guarded(&gate, to, false);
    }
}
