//! Failure 14: an admin surface that is open, or has a key that everybody knows.

use pylon_config::admin::AdminSpec;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::ask;
use pylon_testkit::command::pylon;
use pylon_testkit::upstream::Upstream;

const ROUTES: &str = "routes: [{ match: /, respond: 200 }]";

const PRIVATE: [&str; 5] = ["/metrics", "/api/routes", "/api/upstreams", "/api/snapshot", "/api/recent"];

#[test]
fn the_admin_api_listens_on_loopback_unless_told_otherwise_and_has_no_built_in_key() {
    let default = AdminSpec::default();
    assert!(default.address.ip().is_loopback());
    assert!(default.token.is_none());
    let gate = Binary::start(ROUTES);
    for path in PRIVATE {
        assert_eq!(gate.admin(path).status(), 200, "{path}");
    }
    assert_eq!(gate.admin("/api/nothing").status(), 404);
}

#[test]
fn an_admin_api_for_everybody_without_a_token_is_refused_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Upstream::nobody();
    for address in ["0.0.0.0:0", "'[::]:0'", "192.0.2.1:9901"] {
        let document = format!("listeners: [{{ address: {listener} }}]\nadmin: {{ address: {address} }}\n{ROUTES}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        for command in ["run", "check"] {
            let outcome = pylon(folder.path(), [command, "pylon.yaml"]);
            assert_eq!(outcome.code, Some(2), "{address}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("the admin API would be open to everyone"), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("token: env:PYLON_ADMIN_TOKEN"), "{}", outcome.stderr);
        }
    }
    assert!(std::net::TcpStream::connect(listener).is_err());
}

#[test]
fn with_a_token_only_its_holder_sees_anything_but_the_probes() {
    let document = format!("admin: {{ address: 127.0.0.1:0, token: file:token }}\n{ROUTES}");
    let gate =
        Binary::start_with(&document, &[], |folder| std::fs::write(folder.join("token"), "open sesame\n").unwrap());
    let with = |path: &str, value: &str| ask(gate.admin, "GET", path, &[("authorization", value)], b"").status();
    for path in PRIVATE {
        let closed = gate.admin(path);
        assert_eq!((closed.status(), closed.field("www-authenticate").as_deref()), (401, Some("Bearer")), "{path}");
        assert_eq!(with(path, "Bearer open sesame"), 200, "{path}");
        for wrong in ["Bearer open", "Bearer open sesame ", "Bearer open sesame2", "open sesame", "Basic open sesame"] {
            let status = with(path, wrong);
            // A blank at the end of a field is none of its value (RFC 9110 §5.5).
            assert_eq!(status, if wrong.ends_with(' ') { 200 } else { 401 }, "{path}: {wrong}");
        }
        assert_eq!(with(path, "Bearer "), 401, "{path}");
    }
    for probe in ["/livez", "/readyz"] {
        assert_eq!(gate.admin(probe).status(), 200, "{probe}");
    }
    assert!(!gate.stderr().contains("sesame") && !gate.stdout().contains("sesame"));
}

#[test]
fn no_route_leads_to_the_admin_api() {
    let admin = Upstream::nobody();
    let gate = Binary::start(&format!(
        "admin: {{ address: {admin} }}\nupstreams: {{ self: {{ endpoints: [http://{admin}], host: endpoint }} }}\n\
         routes:\n  - {{ match: \"/{{*rest}}\", forward: self }}\n  - {{ match: /other, forward: self, rewrite: /api/routes }}"
    ));
    assert_eq!(gate.admin("/metrics").status(), 200);
    for path in ["/metrics", "/api/routes", "/api/snapshot", "/livez", "/other"] {
        let answer = gate.ask("GET", path, &[("host", "localhost"), ("via", "1.1 nobody")], b"");
        assert_eq!(answer.status(), 403, "{path}: {}", answer.text());
        assert!(!answer.text().contains("pylon_"), "{path}");
        // Neither does a client that tries to have the mark of the gateway taken away.
        let answer = gate.ask("GET", path, &[("host", "localhost"), ("connection", "via")], b"");
        assert_eq!(answer.status(), 403, "{path}: {}", answer.text());
    }
}

#[test]
fn a_page_that_points_its_name_at_the_admin_api_gets_nothing() {
    let gate = Binary::start(ROUTES);
    for host in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example"] {
        for path in ["/metrics", "/api/routes", "/livez"] {
            assert_eq!(ask(gate.admin, "GET", path, &[("host", host)], b"").status(), 403, "{host} {path}");
        }
    }
    for host in ["localhost", "localhost:9901", "127.0.0.1:9901", "[::1]:9901"] {
        assert_eq!(ask(gate.admin, "GET", "/metrics", &[("host", host)], b"").status(), 200, "{host}");
    }
}

#[test]
fn the_admin_api_only_reads() {
    let gate = Binary::start(ROUTES);
    for path in PRIVATE {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(gate.admin, method, path, &[("host", "localhost")], b"").status(), 405, "{method} {path}");
        }
    }
}

#[test]
fn the_admin_api_shows_what_runs() {
    let upstream = Upstream::named("x");
    let gate = crate::forwarding::before(&upstream, "defaults: { cors: \"https://a.example\" }");
    assert_eq!(gate.get("/seen").status(), 200);
    let routes = gate.admin("/api/routes").json();
    assert_eq!(routes[0]["id"], "/{*rest}");
    assert_eq!(routes[0]["action"], "forward to api");
    assert_eq!(routes[0]["policies"][0], "cors");
    let upstreams = gate.admin("/api/upstreams").json();
    assert_eq!(upstreams[0]["name"], "api");
    assert_eq!(upstreams[0]["endpoints"][0]["attempts"], 1);
    let snapshot = gate.admin("/api/snapshot").json();
    assert_eq!((snapshot["routes"].as_u64(), snapshot["upstreams"].as_u64()), (Some(1), Some(1)));
    let recent = gate.admin("/api/recent").json();
    assert_eq!(recent[0]["path"], "/seen");
}
