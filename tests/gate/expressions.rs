//! Expressions by the real program: who gets past them, and what those cost that are made to take long.

use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;

fn document(service: &Upstream, expression: &str) -> String {
    format!(
        "workers: 1\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\nroutes:\n  - {{ match: \"/x/{{*rest}}\", forward: api, expression: '{expression}' }}\n  - {{ match: /free, respond: 200 }}\n",
        service.url()
    )
}

#[test]
fn what_is_false_fails_or_is_no_answer_is_a_refusal() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, "request.headers[\"x-a\"] == \"1\""));
    assert_eq!(gate.ask("GET", "/x/a", &[("x-a", "1")], b"").status(), 200);
    for (path, fields) in [("/x/b", &[][..]), ("/x/c", &[("x-a", "2")]), ("/x/d", &[("x-a", "1"), ("x-a", "1")])] {
        let answer = gate.ask("GET", path, fields, b"");
        assert_eq!((answer.status(), answer.json()["detail"].as_str()), (403, None), "{fields:?}");
        assert!(gate.logged(path)["detail"].as_str().is_some_and(|why| why.contains("expression")));
    }
    for expression in ["request.path", "request.time", "request.query.a[0] == \"1\"", "request.headers.nothing == \"\""]
    {
        gate.apply(&document(&service, expression));
        assert_eq!(gate.get("/x/a").status(), 403, "{expression}");
    }
    assert_eq!(service.requests(), 1);
}

#[test]
fn an_expression_that_could_take_long_is_refused_when_it_is_read_and_the_one_before_goes_on() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, "request.method == \"PUT\""));
    let nested = "[1, 2].all(a, [1, 2].all(b, a != b))";
    let deep = format!("{}true{}", "(".repeat(2000), ")".repeat(2000));
    let wide = ["true"; 700].join("&&");
    for wrong in [
        nested,
        &deep,
        &wide,
        "",
        "true &&",
        "request.pth == \"/\"",
        "caller.subject == \"a\"",
        "request.path.matches(request.id)",
        "request.path.matches(\"(a{100}){100}{100}\")",
    ] {
        gate.write(&document(&service, wrong));
        assert_eq!(gate.reload().status(), 422, "{wrong}");
        assert_eq!(gate.get("/x/a").status(), 403);
    }
}

#[test]
fn what_a_client_sends_to_make_an_expression_take_long_holds_nobody_up() {
    let service = Upstream::named("x");
    let expression =
        "request.path.matches(\"^/x/(a|aa)+$\") && request.query.all(name, request.query[name].size() < 3)";
    let gate = Binary::start(&document(&service, expression));
    assert_eq!(gate.get("/x/aaaa?a=1").status(), 200);
    let path = format!("/x/{}b?{}", "a".repeat(2000), "a=1&".repeat(500));
    let begun = wait::now();
    for _ in 0..20 {
        let status = gate.get(&path).status();
        assert!(matches!(status, 403 | 503), "{status}");
        assert_eq!(gate.get("/free").status(), 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "twenty take {:?}", begun.elapsed());
    assert_eq!(service.requests(), 1);
}
