//! What expressions are held to: yes or no, types, bounds, and an error for everything else.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use pylon_core::caller::{Caller, Consumer};
use serde_json::json;

use super::*;

fn caller() -> Caller {
    let consumer =
        Consumer { name: "app".into(), groups: ["a".into()].into(), plan: Some("gold".into()), ..Consumer::default() };
    let claims =
        json!({ "tenant": "acme", "level": 3, "verified": true, "roles": ["user", "admin"], "realm": { "x": 1 } });
    let serde_json::Value::Object(claims) = claims else { unreachable!() };
    Caller { claims, scopes: ["read".into()].into(), ..Caller::consumer("jwt", &Arc::new(consumer)) }
}

static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| headers(&[("x-a", "1"), ("x-a", "2"), ("accept", "*/*")]));

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in lines {
        all.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    all
}

fn facts(caller: Option<&Caller>) -> Facts<'_> {
    Facts {
        method: "GET",
        path: "/tenants/acme/orders",
        sent_path: "/acme/orders?a=1&a=2&b=x",
        query: "a=1&a=2&b=x",
        host: "api.example",
        scheme: "https",
        headers: &HEADERS,
        client: [192, 0, 2, 1].into(),
        time: 1_800_000_000,
        id: "id-1",
        caller,
        decode: str::to_owned,
    }
}

fn says(source: &str, caller: Option<&Caller>) -> Result<bool, String> {
    Expression::read(source).map_err(|error| error.problem)?.holds(&facts(caller))
}

#[test]
fn an_expression_decides_by_what_is_known() {
    let ann = caller();
    for (source, holds) in [
        (r#"caller.claims.tenant == request.path.split("/")[2]"#, true),
        (r#"caller.claims.tenant == request.path.split("/")[3]"#, false),
        (r#"request.method in ["GET", "HEAD"] && caller.claims.level >= 3"#, true),
        ("caller.claims.level > 3", false),
        ("caller.claims.verified", true),
        (r#"caller.claims.roles.exists(r, r == "admin")"#, true),
        (r#"caller.claims.roles.all(r, r.startsWith("a"))"#, false),
        (r#""read" in caller.scopes && "a" in caller.groups"#, true),
        (r#"caller.consumer == "app" && caller.plan == "gold" && caller.by == "jwt""#, true),
        (r#"request.headers["x-a"] == "1, 2""#, true),
        (r#""x-b" in request.headers"#, false),
        (r#"request.query.a == ["1", "2"] && request.query.b[0] == "x""#, true),
        (r#"request.client == "192.0.2.1" && request.scheme == "https""#, true),
        (r#"request.path.matches("^/tenants/[a-z]+/")"#, true),
        ("request.time < 1700000000", false),
        ("has(caller.claims.tenant) && !has(caller.claims.absent)", true),
        ("caller.claims.realm.x == 1", true),
        (r#"caller.claims.level == "3""#, false),
    ] {
        assert_eq!(says(source, Some(&ann)), Ok(holds), "{source}");
    }
    assert_eq!(says("caller == null", None), Ok(true));
}

#[test]
fn what_is_no_yes_and_no_no_is_an_error() {
    let ann = caller();
    for source in [
        "caller.claims.tenant",
        "1",
        r#""true""#,
        "null",
        "caller.claims.absent",
        "caller.claims.absent == 1",
        "request.query.none[0] == \"\"",
        r#"request.path.split("/")[99] == """#,
        "caller.claims.level / 0 == 1",
        "caller.claims.tenant > 3",
        "9223372036854775807 + caller.claims.level > 0",
    ] {
        assert!(says(source, Some(&ann)).is_err(), "{source}: {:?}", says(source, Some(&ann)));
    }
    assert!(says("caller.subject == \"app\"", None).is_err());
}

#[test]
fn what_could_take_long_or_means_nothing_is_refused_when_it_is_read() {
    let nested = "caller.groups.all(a, caller.groups.all(b, a != b))";
    let many = ["caller.groups.all(a, a != \"\")"; 5].join(" && ");
    let deep = format!("{}true{}", "(".repeat(3000), ")".repeat(3000));
    let lists = format!("{}{} == []", "[".repeat(100), "]".repeat(100));
    let signs = format!("{}1 == request.time", "-".repeat(4000));
    let chain = format!("{}true", "true ? true : ".repeat(280));
    let path = format!("request{}", ".path".repeat(800));
    let wide = ["true"; 700].join("&&");
    let list = format!("1 in [{}]", ["1"; 600].join(","));
    let long = format!("\"{}\" == \"\"", "x".repeat(LONGEST));
    for source in [
        nested,
        &many,
        &deep,
        &lists,
        &chain,
        &path,
        &wide,
        &list,
        &long,
        "",
        "true",
        "1 == 1 && [1].exists(one, one == 1)",
        "request.",
        "request.pth == \"/\"",
        "caller.claim.tenant == \"a\"",
        "requests.path == \"/\"",
        "caller.groups.all(g, h == g)",
        "request.path.frobnicate()",
        "request.path.matches(request.path)",
        "request.path.matches(\"(\")",
        "request.path.matches(\"(a{100}){100}\")",
        "\"%d\".format([1]) == \"1\"",
        "request.path == \"/\"; true",
    ] {
        assert!(Expression::read(source).is_err(), "{}", &source[..source.len().min(80)]);
    }
    // Signs cancel each other out while they are read, however many.
    assert!(Expression::read(&signs).is_ok());
    let told = Expression::read("true").unwrap_err();
    assert_eq!(told.problem, "the expression is the same for every request");
    let told = Expression::read("requests.path == \"/\"").unwrap_err();
    assert_eq!(told.problem, "nothing is named `requests`");
    // One behind another is as long as both.
    assert!(Expression::read("caller.groups.filter(g, g != \"\").exists(g, g == \"a\")").is_ok());
}

#[test]
fn loops_and_patterns_are_heavy_and_comparisons_are_not() {
    let heavy = |source: &str| Expression::read(source).unwrap().is_heavy();
    assert!(heavy("caller.groups.exists(g, g == \"a\")") && heavy("request.path.matches(\"a\")"));
    assert!(!heavy(r#"caller.claims.tenant == request.path.split("/")[2] && has(caller.claims.x)"#));
    let names = |source: &str| Expression::read(source).unwrap().names_caller();
    assert!(names("true || caller == null") && !names("request.headers.caller == \"caller\""));
}

#[test]
fn what_is_told_is_bounded() {
    let mut ann = caller();
    ann.claims.insert("long".into(), "x".repeat(9000).into());
    assert!(says("caller != null", Some(&ann)).unwrap_err().contains("longer than"));
    ann.claims.insert("long".into(), vec![1; 5000].into());
    assert!(says("caller != null", Some(&ann)).unwrap_err().contains("more than"));
}

#[test]
fn only_what_an_expression_looks_at_is_made_ready_and_bounded() {
    let long = headers(&[("x-long", &"x".repeat(9000))]);
    let holds = |source: &str| Expression::read(source).unwrap().holds(&Facts { headers: &long, ..facts(None) });
    assert_eq!(holds("request.path.startsWith('/tenants/')"), Ok(true));
    assert_eq!(holds("has(request.method) && request.query.b == ['x']"), Ok(true));
    for source in ["'a' in request.headers", "request['path'] != ''", "[request].exists(r, r.path != '')"] {
        assert!(holds(source).unwrap_err().contains("longer than"), "{source}");
    }
    // Who looks at the whole finds all of it.
    assert_eq!(says("[request].all(r, r.path != '' && r.id == 'id-1' && size(r) == 10)", None), Ok(true));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(source in "[a-z(){}\\[\\]\"'.,:?!&|<>=+*/% 0-9@_-]{0,60}") {
        if let Ok(expression) = Expression::read(&source) {
            let _ = expression.holds(&facts(None));
        }
    }

    #[test]
    fn comparisons_of_paths_are_those_of_texts(path in "/[a-z/]{0,20}", prefix in "/[a-z]{0,3}") {
        let expression = Expression::read(&format!("request.path.startsWith('{prefix}')")).unwrap();
        let holds = expression.holds(&Facts { path: &path, ..facts(None) });
        prop_assert_eq!(holds, Ok(path.starts_with(&prefix)));
    }
}
