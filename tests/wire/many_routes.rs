//! Failure 22: with many routes the gateway starts late and finds the last ones slowly, or not at all.

use std::fmt::Write as _;

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now};

const COUNT: usize = 10_000;

#[test]
fn ten_thousand_routes_are_soon_ready_and_each_is_found() {
    let upstream = Upstream::echo();
    let mut document = format!("upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes:\n", upstream.url());
    for index in 0..COUNT {
        match index % 4 {
            0 => writeln!(
                document,
                "  - {{ match: \"GET /v{index}/users/{{id}}\", forward: api, rewrite: \"/got/{index}/{{id}}\" }}"
            ),
            1 => writeln!(
                document,
                "  - {{ match: \"h{index}.test/users/{{id}}\", forward: api, rewrite: \"/got/{index}/{{id}}\" }}"
            ),
            2 => writeln!(
                document,
                "  - {{ match: \"/files/{index}/{{*rest}}\", forward: api, rewrite: \"/got/{index}/{{rest}}\" }}"
            ),
            _ => writeln!(document, "  - {{ match: /plain/{index}/end, forward: api, rewrite: /got/{index}/7 }}"),
        }
        .unwrap();
    }
    let begun = now();
    let gate = Binary::start(&document);
    let took = begun.elapsed();
    assert!(took < ms(10_000), "the start took {took:?}");
    let mut client = gate.connect();
    for index in
        [0, 1, 2, 3, COUNT / 2, COUNT / 2 + 1, COUNT / 2 + 2, COUNT / 2 + 3, COUNT - 4, COUNT - 3, COUNT - 2, COUNT - 1]
    {
        let (host, path) = match index % 4 {
            0 => ("gate.test".to_owned(), format!("/v{index}/users/7")),
            1 => (format!("h{index}.test"), "/users/7".to_owned()),
            2 => ("gate.test".to_owned(), format!("/files/{index}/7")),
            _ => ("gate.test".to_owned(), format!("/plain/{index}/end")),
        };
        let answer = client.ask("GET", &path, &[("host", &host)], b"");
        assert_eq!(answer.status(), 200, "{host}{path}");
        assert_eq!(answer.json()["path"], format!("/got/{index}/7"));
    }
    for (host, path) in [
        ("gate.test", "/v10000/users/7"),
        ("h10001.test", "/users/7"),
        ("gate.test", "/plain/3"),
        ("gate.test", "/"),
        ("h1.test", "/users"),
    ] {
        assert_eq!(client.ask("GET", path, &[("host", host)], b"").status(), 404, "{host}{path}");
    }
    assert_eq!(client.ask("POST", "/v0/users/7", &[], b"").status(), 405);
}
