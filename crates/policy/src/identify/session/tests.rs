//! What sessions are held to: what is good proves a caller, and nothing else does.

use pylon_core::connection::Scheme;
use pylon_observe::clock::unix_now;
use pylon_testkit::issuer::Signer;
use serde_json::{Value, json};

use super::party::Memory;
use super::revoked::Name;
use super::ticket::{Ticket, end};
use super::*;
use crate::testing::{Seen, compile, now};

pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";

fn policy(more: &str) -> Session {
    let json = format!(r#"{{ "issuer": "https://id.test", "client_id": "shop", "keys": "{KEY}"{more} }}"#);
    compile(&json).unwrap()
}

/// A session that began so many seconds ago.
pub(super) fn ticket(ago: u64) -> Ticket {
    let begun = unix_now().as_secs() - ago;
    let claims =
        json!({ "iss": "https://id.test", "sub": "ann", "sid": "s1", "email": "ann@id.test", "roles": ["a", "b"] });
    Ticket {
        id: "one".into(),
        begun,
        seen: begun,
        id_token: Signer::secret("HS256", KEY.as_bytes()).token(&claims),
        told: serde_json::Map::new(),
        scopes: "openid email".into(),
        access: Some("the-access-token".into()),
        refresh: None,
        given: begun,
        ends: end(begun, Some(300)),
    }
}

/// A request with this session, under HTTPS.
pub(super) fn with(policy: &Session, ticket: &Ticket) -> Seen {
    let party = &policy.doors.party;
    let jar = party.names.of(Scheme::Https);
    let content = serde_json::to_vec(ticket).unwrap();
    let envelope = party.ring.seal(&party.bound("session", jar.name()), &content).unwrap();
    let lines = jar.write(&envelope, 60, &HeaderMap::new()).unwrap();
    lines.iter().fold(page(), |seen, line| seen.header("cookie", line.to_str().unwrap().split(';').next().unwrap()))
}

pub(super) fn page() -> Seen {
    Seen::get("/a?b=c").scheme(Scheme::Https).header("host", "shop.test").header("accept", "text/html")
}

type Met = (Option<Arc<Caller>>, Option<Box<After>>, Request);

fn meet(policy: &Session, seen: &Seen) -> Met {
    let (mut req, mut cx) = seen.start();
    let after = now(policy.on_request(&mut req, &mut cx)).unwrap();
    let cookies: Vec<_> = req.headers().get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
    assert!(!cookies.join(";").contains("pylon_session"), "services see {cookies:?}");
    (cx.caller.clone(), after, req)
}

/// The cookies that are taken away.
pub(super) fn forgotten(after: Option<Box<After>>) -> usize {
    let cookies = match after.map(|after| *after) {
        Some(After::Ask(visit)) => visit.cookies,
        Some(After::Write(cookies)) => cookies,
        None => Vec::new(),
    };
    cookies.iter().filter(|line| line.to_str().unwrap().contains("Max-Age=0;")).count()
}

#[test]
fn a_session_proves_who_is_asking_and_its_cookie_goes_no_further() {
    let policy = policy(
        r#", "headers": { "x-user": "subject", "x-email": "claims.email", "x-roles": "groups" }, "groups_claim": "roles""#,
    );
    let seen =
        with(&policy, &ticket(0)).header("cookie", "theme=dark").header("X_User", "root").header("x-roles", "root");
    for _ in 0..2 {
        let (caller, after, req) = meet(&policy, &seen);
        let caller = caller.unwrap();
        assert_eq!((caller.by, &*caller.subject), ("session", "ann"));
        assert!(caller.has_scope("email") && caller.is_in("b") && !caller.is_in("root") && after.is_none());
        let told: Vec<_> =
            ["x-user", "x-email", "x-roles"].iter().map(|name| req.headers()[*name].to_str().unwrap()).collect();
        assert_eq!(told, ["ann", "ann@id.test", "a,b"]);
        assert_eq!(req.headers()["cookie"], "theme=dark");
        assert!(!req.headers().contains_key("x_user"));
        let all = format!("{:?}", req.headers());
        assert!(!all.contains("the-access-token") && !all.contains("eyJ"), "{all}");
    }
}

#[test]
fn tokens_go_to_services_where_that_is_written_and_never_from_clients() {
    let policy = policy(r#", "tokens": { "authorization": "access_token", "x-id-token": "id_token" }"#);
    let ticket = ticket(0);
    let forged = |seen: Seen| seen.header("authorization", "Bearer forged").header("X_ID_Token", "forged");
    let (_, _, req) = meet(&policy, &forged(with(&policy, &ticket)));
    assert_eq!(req.headers()["authorization"], "Bearer the-access-token");
    assert_eq!(req.headers()["x-id-token"], *ticket.id_token);
    assert!(req.headers()["authorization"].is_sensitive() && req.headers()["x-id-token"].is_sensitive());
    let (caller, _, req) = meet(&policy, &forged(page()));
    assert!(caller.is_none() && !format!("{:?}", req.headers()).contains("forged"));
}

#[test]
fn a_page_without_a_session_may_have_to_log_in_and_a_program_is_told_so() {
    let policy = policy("");
    let (caller, after, _) = meet(&policy, &page());
    assert!(caller.is_none());
    let Some(After::Ask(visit)) = after.map(|after| *after) else { panic!("nobody is sent to log in") };
    assert_eq!((&*visit.to, &*visit.arrival.origin), ("/a?b=c", "https://shop.test"));
    let program = Seen::get("/a").scheme(Scheme::Https).header("accept", "application/json");
    assert!(meet(&policy, &program).1.is_none());
    // It is sent only where a caller is demanded.
    let (mut req, mut cx) = page().start();
    let memo = now(policy.on_request(&mut req, &mut cx)).unwrap();
    let mut response = Response::new(Body::Empty);
    now(policy.on_response(memo, &mut response, &mut cx)).unwrap();
    assert!(response.headers().is_empty());
}

#[test]
fn what_is_no_good_session_is_none_and_goes_away() {
    let policy = policy("");
    let good = with(&policy, &ticket(0));
    assert!(meet(&policy, &good).0.is_some());
    let other_key = compile::<Session>(
        r#"{ "issuer": "https://id.test", "client_id": "shop", "keys": "another key of thirty-two bytes!" }"#,
    );
    let other_client =
        compile::<Session>(&format!(r#"{{ "issuer": "https://id.test", "client_id": "web", "keys": "{KEY}" }}"#));
    let other_issuer =
        compile::<Session>(&format!(r#"{{ "issuer": "https://id2.test", "client_id": "shop", "keys": "{KEY}" }}"#));
    for other in [other_key, other_client, other_issuer] {
        assert!(meet(&other.unwrap(), &good).0.is_none());
    }
    for (what, seen) in [
        ("its lifetime is over", with(&policy, &Ticket { seen: unix_now().as_secs(), ..ticket(8 * 3600) })),
        ("nobody used it", with(&policy, &ticket(3600))),
        ("forged", page().header("cookie", "__Host-pylon_session=1.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("twice", good.clone().header("cookie", "__Host-pylon_session=1.x")),
        ("not whole", page().header("cookie", "__Host-pylon_session=2.AQAA")),
    ] {
        let (caller, after, _) = meet(&policy, &seen);
        assert!(caller.is_none(), "{what}");
        assert_eq!(forgotten(after), 1, "{what}");
    }
    // What came in cleartext, or was sealed for it, is none under TLS.
    assert!(meet(&policy, &good.scheme(Scheme::Http)).0.is_none());
}

#[test]
fn a_key_that_was_put_before_seals_what_the_one_behind_opens() {
    let old = policy("");
    let seen = with(&old, &ticket(0));
    let json = format!(
        r#"{{ "issuer": "https://id.test", "client_id": "shop", "keys": ["a new key of thirty-two bytes....", "{KEY}"] }}"#
    );
    let turned: Session = compile(&json).unwrap();
    let (caller, after, _) = meet(&turned, &seen);
    assert_eq!(&*caller.unwrap().subject, "ann");
    let Some(After::Write(cookies)) = after.map(|after| *after) else { panic!("it is not written anew") };
    let pair = cookies[0].to_str().unwrap().split(';').next().unwrap();
    let new = page().header("cookie", pair);
    assert!(meet(&turned, &new).0.is_some() && meet(&old, &new).0.is_none());
}

#[test]
fn a_session_that_is_used_is_written_anew_from_time_to_time() {
    let policy = policy("");
    assert!(meet(&policy, &with(&policy, &ticket(300))).1.is_none());
    let (caller, after, _) = meet(&policy, &with(&policy, &ticket(400)));
    let Some(After::Write(cookies)) = after.map(|after| *after) else { panic!("it is not written") };
    assert!(caller.is_some() && cookies[0].to_str().unwrap().contains("Max-Age=3600;"));
    let mut response = Response::new(Body::Empty);
    let mut cx = page().exchange();
    let memo = Some(Box::new(After::Write(cookies)));
    now(policy.on_response(memo, &mut response, &mut cx)).unwrap();
    assert_eq!(response.headers()["cache-control"], "private");
    assert!(response.headers().contains_key("set-cookie"));
}

#[test]
fn a_session_that_was_ended_is_over_at_once_though_it_was_good_before() {
    for name in [Name::Session("one"), Name::Sid("s1"), Name::Subject("ann")] {
        let policy = policy("");
        let seen = with(&policy, &ticket(10));
        assert!(meet(&policy, &seen).0.is_some());
        policy.doors.party.memory.end(name, unix_now().as_secs());
        let (caller, after, _) = meet(&policy, &seen);
        assert!(caller.is_none() && forgotten(after) == 1, "{name:?}");
    }
}

#[test]
fn a_session_of_many_parts_is_remembered_until_one_of_them_is_another() {
    let policy = policy("");
    let long = Ticket { access: Some("x".repeat(9000)), ..ticket(0) };
    let seen = with(&policy, &long);
    for _ in 0..2 {
        assert_eq!(&*meet(&policy, &seen).0.unwrap().subject, "ann");
    }
    let lines: Vec<String> =
        seen.start().0.headers().get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
    assert!(lines.len() > 2, "{}", lines.len());
    for changed in 0..lines.len() {
        let forged = lines.iter().enumerate().fold(page(), |seen, (place, line)| {
            let last = if line.ends_with('A') { "B" } else { "A" };
            let line = if place == changed { format!("{}{last}", &line[..line.len() - 1]) } else { line.clone() };
            seen.header("cookie", &line)
        });
        assert!(meet(&policy, &forged).0.is_none(), "{changed}");
    }
    policy.doors.party.memory.end(Name::Subject("ann"), unix_now().as_secs());
    assert!(meet(&policy, &seen).0.is_none());
}

#[test]
fn where_all_gateways_know_of_logouts_this_one_keeps_no_list_and_forgets_whom_it_knew() {
    let (memory, ann) = (Memory::default(), Name::Subject("ann"));
    let before = memory.generation();
    memory.end(ann, 100);
    assert!(memory.generation() > before && !memory.is_ended(&[ann], 50));
    // A list that is full would end sessions for their age.
    for number in 0..200_000_u32 {
        memory.end(Name::Session(&number.to_string()), 100);
    }
    assert!(!memory.is_ended(&[Name::Session("other")], 50));
    memory.look_here();
    memory.end(ann, 100);
    assert!(memory.is_ended(&[ann], 50));
}

#[test]
fn whoever_is_known_by_a_credential_of_the_request_has_no_need_of_a_session() {
    let policy = policy(r#", "headers": { "x-user": "subject" }"#);
    let met = |seen: &Seen, by: &'static str| {
        let (mut req, mut cx) = seen.start();
        let told = [(HeaderName::from_static("x-user"), HeaderValue::from_static("app"))].into();
        cx.caller = Some(Arc::new(Caller { by, subject: "app".into(), told, ..Caller::default() }));
        let after = now(policy.on_request(&mut req, &mut cx)).unwrap();
        let told = req.headers()["x-user"].to_str().unwrap().to_owned();
        (cx.caller.unwrap().subject.to_string(), told, after.is_none(), req.headers().contains_key("cookie"))
    };
    let known = ("app".to_owned(), "app".to_owned(), true, false);
    for by in ["api_key", "basic", "jwt"] {
        assert_eq!(met(&with(&policy, &ticket(0)), by), known);
        assert_eq!(met(&page(), by), known);
    }
    let user = ("ann".to_owned(), "ann".to_owned(), true, false);
    assert_eq!(met(&with(&policy, &ticket(0)), "client_cert"), user);
}

#[test]
fn while_the_issuer_is_away_a_session_goes_on_to_the_end_of_its_tokens_and_no_further() {
    let policy = policy("");
    let refresh = Some("r".to_owned());
    let meets = |ticket: &Ticket| {
        let (mut req, mut cx) = with(&policy, ticket).start();
        let Step::Wait(waiting) = policy.on_request(&mut req, &mut cx) else { panic!("nothing is renewed") };
        let outcome = crate::testing::run(waiting);
        (outcome.err().map(|stop| crate::testing::stopped::<()>(Err(stop))), cx.caller.is_some())
    };
    // Nothing answers here: the control plane has not begun.
    assert_eq!(meets(&Ticket { refresh: refresh.clone(), ..ticket(250) }), (None, true));
    assert_eq!(meets(&Ticket { refresh, ..ticket(300) }), (Some("caller.unknown"), false));
}

#[test]
fn what_could_not_be_meant_is_refused_at_load() {
    let good = format!(r#""issuer": "https://id.test", "client_id": "shop", "keys": "{KEY}""#);
    for (json, wrong) in [
        (
            format!(r#"{{ "issuer": "http://id.test", "client_id": "shop", "keys": "{KEY}" }}"#),
            "issuer: who stands between",
        ),
        (format!(r#"{{ "issuer": "", "client_id": "shop", "keys": "{KEY}" }}"#), "issuer: "),
        (format!(r#"{{ "issuer": "https://id.test", "client_id": "", "keys": "{KEY}" }}"#), "client_id: "),
        (
            r#"{ "issuer": "https://id.test", "client_id": "shop", "keys": "short" }"#.to_owned(),
            "keys: this secret has fewer than 32",
        ),
        (
            r#"{ "issuer": "https://id.test", "client_id": "shop", "keys": "" }"#.to_owned(),
            "keys: this secret has fewer",
        ),
        (r#"{ "issuer": "https://id.test", "client_id": "shop", "keys": [] }"#.to_owned(), "keys: no secret"),
        (r#"{ "issuer": "https://id.test", "client_id": "shop", "keys": "env:NOT_THERE" }"#.to_owned(), "keys: "),
        (format!(r#"{{ "issuer": "https://id.test", "client_id": "shop", "keys": ["{KEY}", "short"] }}"#), "keys[1]: "),
        (format!(r#"{{ {good}, "client_secret": "env:NOT_THERE" }}"#), "client_secret: "),
        (format!(r#"{{ {good}, "client_secret": "" }}"#), "client_secret: this secret is empty"),
        (format!(r#"{{ {good}, "scopes": ["a b"] }}"#), "scopes[0]: "),
        (format!(r#"{{ {good}, "params": {{ "state": "x" }} }}"#), "params.state: "),
        (format!(r#"{{ {good}, "params": {{ "redirect_uri": "x" }} }}"#), "params.redirect_uri: "),
        (format!(r#"{{ {good}, "path": "auth" }}"#), "path: "),
        (format!(r#"{{ {good}, "path": "/" }}"#), "path: "),
        (format!(r#"{{ {good}, "path": "/a/{{b}}" }}"#), "path: "),
        (format!(r#"{{ {good}, "path": "/a/../b" }}"#), "path: "),
        (format!(r#"{{ {good}, "path": "//a" }}"#), "path: "),
        (format!(r#"{{ {good}, "origin": "shop.test" }}"#), "origin: "),
        (format!(r#"{{ {good}, "origin": "https://shop.test/a" }}"#), "origin: "),
        (format!(r#"{{ {good}, "origin": "https://shop.test/" }}"#), "origin: "),
        (format!(r#"{{ {good}, "origin": "https://a@shop.test" }}"#), "origin: "),
        (format!(r#"{{ {good}, "cookie": "a=b" }}"#), "cookie: "),
        (format!(r#"{{ {good}, "cookie": "__Host-a" }}"#), "cookie: "),
        (format!(r#"{{ {good}, "lifetime": "59s" }}"#), "lifetime: "),
        (format!(r#"{{ {good}, "lifetime": "31d" }}"#), "lifetime: "),
        (format!(r#"{{ {good}, "idle": "9h" }}"#), "idle: "),
        (format!(r#"{{ {good}, "idle": "1s" }}"#), "idle: "),
        (format!(r#"{{ {good}, "leeway": "6m" }}"#), "leeway: "),
        (format!(r#"{{ {good}, "after_logout": "//evil.test" }}"#), "after_logout: "),
        (format!(r#"{{ {good}, "after_logout": "https://evil.test" }}"#), "after_logout: "),
        (format!(r#"{{ {good}, "store": "redis" }}"#), "store: this is to stand in Redis, and no Redis is written"),
        (format!(r#"{{ {good}, "logouts": "redis" }}"#), "logouts: this is to stand in Redis"),
        (format!(r#"{{ {good}, "store": "redis", "logouts": "redis" }}"#), "logouts: `logouts` means nothing beside"),
        (format!(r#"{{ {good}, "algorithms": "HS256" }}"#), "algorithms[0]: "),
        (format!(r#"{{ {good}, "subject_claim": "" }}"#), "subject_claim: "),
        (format!(r#"{{ {good}, "headers": {{ "x-user": "user" }} }}"#), "headers.x-user: "),
        (format!(r#"{{ {good}, "tokens": {{ "host": "id_token" }} }}"#), "tokens.host: "),
        (
            format!(r#"{{ {good}, "headers": {{ "x-a": "subject" }}, "tokens": {{ "x-a": "id_token" }} }}"#),
            "tokens.x-a: ",
        ),
    ] {
        let error = compile::<Session>(&json).unwrap_err();
        assert!(error.contains(wrong), "{json}: {error}");
    }
    for json in [
        "{}".to_owned(),
        "true".to_owned(),
        format!(r#"{{ {good}, "client_secret": null }}"#),
        format!(r#"{{ {good}, "client_secrets": "x" }}"#),
        format!(r#"{{ {good}, "tokens": {{ "x-a": "refresh_token" }} }}"#),
        format!(r#"{{ {good}, "after_logout": null }}"#),
        format!(r#"{{ {good}, "auth": "none" }}"#),
        format!(r#"{{ {good}, "store": null }}"#),
        format!(r#"{{ {good}, "store": "memory" }}"#),
        format!(r#"{{ {good}, "logouts": null }}"#),
        format!(r#"{{ {good}, "logouts": true }}"#),
    ] {
        assert!(serde_json::from_str::<<Session as Policy>::Spec>(&json).is_err(), "{json}");
    }
    let told: Value =
        serde_json::to_value(&policy(r#", "scopes": ["openid", "email", "email"]"#).doors.party.scopes).unwrap();
    assert_eq!(told, "openid email");
}
