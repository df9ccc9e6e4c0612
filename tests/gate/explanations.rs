//! Failure 47: nobody can tell why a route did not match, or who made an answer.

use pylon_testkit::answer::Answer;
use pylon_testkit::command::pylon;
use pylon_testkit::upstream::Upstream;

use crate::forwarding::before;

const DOCUMENT: &str = "listeners: [{ address: 127.0.0.1:0 }]
upstreams:
  users: { endpoints: [http://10.0.0.1:8080] }
  staff: { endpoints: [http://10.0.0.2:8080] }
defaults:
  cors: https://shop.example
  ip_filter: { deny: 192.0.2.0/24 }
routes:
  - match: { methods: GET, path: \"/users/{id}\", headers: { x-beta: \"1\" } }
    forward: staff
    ip_filter: off
  - match: GET /users/{id}
    name: user
    forward: users
    rewrite: /people/{id}
    request_limits: { uri: 1KiB }
    shadow: [request_limits]
  - match: \"/users/{*rest}\"
    respond: 404
";

/// What `pylon explain` says to these arguments.
fn explain(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pylon.yaml"), DOCUMENT).unwrap();
    let outcome = pylon(folder.path(), ["explain"].iter().chain(arguments));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    outcome.stdout
}

#[test]
fn a_match_is_explained_with_its_candidates_and_its_policies() {
    insta::assert_snapshot!(explain(&["GET", "http://api.example.com/users/7?full=1"]), @r#"
    GET http://api.example.com/users/7?full=1

      host    api.example.com
      path    /users/7?full=1
      client  127.0.0.1 by http

    candidates, in the order in which they are tried
      1. GET /users/{id} if header `x-beta` is `1`  does not hold: header `x-beta` is `1`  (pylon.yaml:9)
      2. GET /users/{id}                            takes the request  (pylon.yaml:12)
      3. /users/{*rest}                             matches, but a more specific route came first  (pylon.yaml:18)

    route   user  (pylon.yaml:12)
    action  forward to users
    sends   /people/7?full=1
    timers  connect 3s, response 30s, idle 1m

    policies, in the order in which the request meets them
      ip_filter       {"deny":["192.0.2.0/24"]}  (pylon.yaml:7)
      request_limits  {"uri":"1KiB","content_types":[]}  (pylon.yaml:16, in shadow)
      cors            {"origins":["https://shop.example"],"methods":[],"headers":[],"expose":[],"credentials":false,"max_age":"10m","private_network":false}  (pylon.yaml:6)
    "#);
    insta::assert_snapshot!(explain(&["GET", "/users/7", "-H", "X-Beta: 1", "--client", "10.1.2.3"]), @r#"
    GET /users/7

      host    localhost
      path    /users/7
      client  10.1.2.3 by http

    candidates, in the order in which they are tried
      1. GET /users/{id} if header `x-beta` is `1`  takes the request  (pylon.yaml:9)
      2. GET /users/{id}                            matches, but a more specific route came first  (pylon.yaml:12)
      3. /users/{*rest}                             matches, but a more specific route came first  (pylon.yaml:18)

    route   GET /users/{id} if header `x-beta` is `1`  (pylon.yaml:9)
    action  forward to staff
    timers  connect 3s, response 30s, idle 1m

    policies, in the order in which the request meets them
      cors            {"origins":["https://shop.example"],"methods":[],"headers":[],"expose":[],"credentials":false,"max_age":"10m","private_network":false}  (pylon.yaml:6)
    "#);
}

#[test]
fn a_refusal_is_explained_with_what_failed_first() {
    insta::assert_snapshot!(explain(&["DELETE", "/orders"]), @r#"
    DELETE /orders

      host    localhost
      path    /orders
      client  127.0.0.1 by http

    no route has this host and path

    refused with 404: No route matches this request (route.not_found)

    route   (none)  (pylon.yaml:5)
    action  answer 404

    policies, in the order in which the request meets them
      ip_filter       {"deny":["192.0.2.0/24"]}  (pylon.yaml:7)
      cors            {"origins":["https://shop.example"],"methods":[],"headers":[],"expose":[],"credentials":false,"max_age":"10m","private_network":false}  (pylon.yaml:6)
    "#);
    insta::assert_snapshot!(explain(&["GET", "/users/..%2fadmin"]), @r#"
    GET /users/..%2fadmin

      host    (none)
      path    /users/..%2fadmin
      client  127.0.0.1 by http

    refused with 400: The path is not valid (request.path): the path has an encoded slash

    route   (none)  (pylon.yaml:5)
    action  answer 404

    policies, in the order in which the request meets them
      ip_filter       {"deny":["192.0.2.0/24"]}  (pylon.yaml:7)
      cors            {"origins":["https://shop.example"],"methods":[],"headers":[],"expose":[],"credentials":false,"max_age":"10m","private_network":false}  (pylon.yaml:6)
    "#);
}

#[test]
fn a_question_that_is_none_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pylon.yaml"), DOCUMENT).unwrap();
    for arguments in [["G ET", "/"], ["GET", "ftp://x/"]] {
        let outcome = pylon(folder.path(), ["explain"].into_iter().chain(arguments));
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
    }
}

#[test]
fn the_reason_of_a_refusal_stands_in_the_log_and_where_wanted_in_a_header() {
    let upstream = Upstream::named("x");
    let plain = before(&upstream, "defaults: { ip_filter: { deny: 127.0.0.1 } }");
    let answer = plain.get("/x");
    assert_eq!((answer.status(), answer.code().as_deref()), (403, Some("ip_filter.denied")));
    assert_eq!(answer.field("x-pylon-reason"), None);
    assert_eq!(answer.json()["request_id"], answer.field("x-request-id").unwrap());
    let line = plain.logged("/x");
    assert_eq!(
        (line["reason"].as_str(), line["id"].as_str()),
        (Some("ip_filter.denied"), answer.field("x-request-id").as_deref())
    );
    let told = before(&upstream, "defaults: { ip_filter: { deny: 127.0.0.1 } }\ntelemetry: { reason_header: true }");
    assert_eq!(told.get("/x").field("x-pylon-reason").as_deref(), Some("ip_filter.denied"));
}

#[test]
fn a_service_cannot_pass_its_answer_off_as_the_gateways() {
    let upstream = Upstream::http(|_| {
        Answer::new(403)
            .field("content-type", "application/problem+json")
            .field("x-pylon-reason", "ip_filter.denied")
            .field("x-request-id", "forged")
            .body(r#"{"code":"ip_filter.denied"}"#)
    });
    for more in ["", "telemetry: { reason_header: true }"] {
        let gate = before(&upstream, more);
        let answer = gate.get("/x");
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.field("x-pylon-reason"), None);
        assert_ne!(answer.field("x-request-id").as_deref(), Some("forged"));
        let line = gate.logged("/x");
        assert_eq!((line["reason"].as_str(), line["upstream"].as_str()), (None, Some("api")));
    }
}
