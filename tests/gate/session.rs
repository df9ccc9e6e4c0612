//! Logins by the real program at a certified identity provider: what a browser and what a program gets, and what nobody gets without a
//! login of their own.

use std::thread;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::message::Message;
use pylon_testkit::provider::{Provider, Registered};
use pylon_testkit::surfer::{Landed, PAGE, Surfer};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how many seconds access tokens are good where they are to end.
const SHORT: u64 = 2;
/// As many seconds and some more.
const OVER: Duration = Duration::from_millis(SHORT * 1000 + 200);

/// A gateway before a service, with a login at a provider.
struct Site {
    provider: Provider,
    gate: Binary,
    origin: String,
    client: Registered,
    service: Upstream,
}

impl Site {
    /// None where there is no provider. The gateway proves itself there by `auth`.
    fn start(access_tokens: u64, auth: &str, more: &str) -> Option<Self> {
        let provider = Provider::start(access_tokens)?;
        let service = Upstream::echo();
        let gate = Binary::start("routes: [{ match: /goodbye, respond: { body: goodbye } }]");
        let origin = format!("http://{}", gate.address());
        let client = provider.register(&origin, auth);
        std::fs::write(gate.folder().join("key"), "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::write(gate.folder().join("new-key"), "fedcba9876543210fedcba9876543210").unwrap();
        std::fs::write(gate.folder().join("secret"), client.secret.as_deref().unwrap_or_default()).unwrap();
        let site = Self { provider, gate, origin, client, service };
        site.gate.apply(&site.document("file:key", more));
        Some(site)
    }

    fn document(&self, keys: &str, more: &str) -> String {
        let secret = if self.client.secret.is_some() { "client_secret: file:secret, " } else { "" };
        format!(
            "workers: 2\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
             defaults:\n  session: {{ issuer: \"{}\", client_id: \"{}\", {secret}keys: {keys}, scopes: [email, groups], groups_claim: groups, \
             headers: {{ x-user: subject, x-email: claims.email, x-groups: groups }}{more} }}\n\
             routes:\n  - {{ match: /goodbye, respond: {{ body: goodbye }}, session: off }}\n  \
             - {{ match: \"/open/{{*rest}}\", forward: api, anonymous: allow }}\n  - {{ match: \"/{{*rest}}\", forward: api }}\n",
            self.service.url(),
            self.provider.issuer(),
            self.client.id,
        )
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// A browser that has logged in under this name.
    fn logged_in(&self, name: &str) -> Surfer {
        let mut surfer = Surfer::default();
        let at = surfer.follow(&self.url("/first"));
        let home = surfer.log_in(&at, name);
        assert_eq!((home.url.as_str(), home.answer.status()), (&*self.url("/first"), 200), "{}", home.answer.text());
        surfer
    }

    /// What a program gets with the cookies of this browser.
    fn program(&self, surfer: &mut Surfer) -> Message {
        surfer.ask("GET", &self.url("/data"), &[("accept", "application/json")], b"")
    }
}

pub(crate) fn user(answer: &Message) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["headers"]["x-user"].as_str().unwrap_or("nobody").to_owned()
}

pub(crate) fn refused(landed: &Landed, status: u16) {
    assert_eq!(landed.answer.status(), status, "{}: {}", landed.url, landed.answer.text());
    let kind = landed.answer.field("content-type").unwrap();
    assert!(kind.starts_with("text/html") && landed.answer.text().contains("Log in again"));
}

#[test]
fn a_login_ends_where_it_began_and_the_service_learns_who_came() {
    for auth in ["client_secret_basic", "client_secret_post", "none"] {
        let more = if auth == "client_secret_post" { ", auth: post" } else { "" };
        let Some(site) = Site::start(600, auth, more) else { return };
        let mut surfer = Surfer::default();
        let at = surfer.follow(&site.url("/a/b?c=d&e=%2F"));
        let home = surfer.log_in(&at, "ann");
        assert_eq!(home.url, site.url("/a/b?c=d&e=%2F"), "{}", home.answer.text());
        assert_eq!(user(&home.answer), "ann");
        let told = home.answer.json()["headers"].clone();
        assert_eq!((&told["x-email"], &told["x-groups"]), (&"ann@id.test".into(), &"staff".into()));
        assert!(told.get("cookie").is_none() && told.get("authorization").is_none(), "{told}");
        assert_eq!(surfer.names(&site.origin), ["pylon_session"], "the login's own cookie is gone");
        let forged = [("accept", "text/html"), ("x-user", "root"), ("x_email", "root"), ("cookie2", "x")];
        let answer = surfer.ask("GET", &site.url("/c"), &forged, b"");
        assert_eq!((user(&answer).as_str(), answer.json()["headers"].get("x_email")), ("ann", None));
        let line = site.gate.logged("/c");
        assert_eq!((&line["caller"], &line["identified_by"]), (&"ann".into(), &"session".into()));
        let said = site.gate.stdout() + &site.gate.stderr();
        assert!(!said.contains("code=") && !said.contains("state="), "{said}");
        assert_eq!(site.provider.token_requests(), 1);
    }
}

#[test]
fn a_program_is_told_401_where_a_browser_is_sent_to_log_in() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let mut surfer = Surfer::default();
    let login = surfer.visit(&site.url("/page"));
    assert_eq!(login.status(), 303);
    assert_eq!(login.field("cache-control").as_deref(), Some("no-store"));
    let to = login.field("location").unwrap();
    assert!(to.starts_with(&format!("{}/auth?", site.provider.issuer())), "{to}");
    for needed in
        ["response_type=code", "code_challenge_method=S256", "&state=", "&nonce=", "scope=openid+email+groups"]
    {
        assert!(to.contains(needed), "{needed}: {to}");
    }
    for (method, fields) in [
        ("GET", &[("accept", "application/json")][..]),
        ("GET", &[("accept", "*/*")]),
        ("GET", &[]),
        ("GET", &[PAGE, ("sec-fetch-mode", "cors")]),
        ("GET", &[PAGE, ("x-requested-with", "XMLHttpRequest")]),
        ("POST", &[PAGE]),
        ("HEAD", &[PAGE]),
    ] {
        let answer = site.gate.ask(method, "/data", fields, b"");
        assert_eq!((answer.status(), answer.field("location")), (401, None), "{method} {fields:?}");
        assert!(answer.field("set-cookie").is_none());
    }
    assert_eq!(site.gate.ask("GET", "/data", &[], b"").code().as_deref(), Some("caller.missing"));
    // Where nobody is demanded, nobody is sent; who has logged in is known.
    assert_eq!(user(&surfer.visit(&site.url("/open/a"))), "nobody");
    assert_eq!(user(&site.logged_in("ann").visit(&site.url("/open/a"))), "ann");
    assert_eq!(site.service.requests(), 3);
}

#[test]
fn a_login_is_finished_once_and_by_the_browser_that_began_it() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let begin = |surfer: &mut Surfer| {
        let at = surfer.follow(&site.url("/first"));
        surfer.name_given(&at, "ann")
    };
    let mut ann = Surfer::default();
    let back = begin(&mut ann);
    // Somebody else is sent what ann would come back to: no session of hers, and none at all.
    let mut bob = Surfer::default();
    refused(&bob.follow(&back), 400);
    let _own = begin(&mut bob);
    refused(&bob.follow(&back), 400);
    assert!(!bob.names(&site.origin).contains(&"pylon_session".to_owned()));
    // What comes back is changed on its way.
    let changed = |from: &str, to: &str| {
        assert!(back.contains(from), "{back}");
        back.replace(from, to)
    };
    refused(&ann.clone().follow(&changed("state=", "state=x")), 400);
    refused(&ann.clone().follow(&changed("state=", "state=x&state=")), 400);
    let mut again = ann.clone();
    assert_eq!(ann.follow(&back).answer.status(), 200);
    refused(&again.follow(&back), 400);
    assert_eq!(user(&ann.visit(&site.url("/"))), "ann", "the first login holds");
    for path in ["/.session/callback", "/.session/callback?state=&code=x", "/.session/callback?code=x"] {
        refused(&Surfer::default().follow(&site.url(path)), 400);
    }
}

#[test]
fn what_an_issuer_brings_back_must_be_of_that_issuer() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let begin = || {
        let mut surfer = Surfer::default();
        let at = surfer.follow(&site.url("/first"));
        let back = surfer.name_given(&at, "ann");
        let (rest, iss) = back.split_once("&iss=").map(|(rest, iss)| (rest.to_owned(), iss.to_owned())).unwrap();
        assert!(!iss.contains('&'), "{back}");
        (surfer, rest)
    };
    for iss in ["&iss=http%3A%2F%2Fevil.test", "", "&iss="] {
        let (mut surfer, back) = begin();
        refused(&surfer.follow(&format!("{back}{iss}")), 400);
        assert_eq!(site.program(&mut surfer).status(), 401);
    }
    let issuer = site.provider.issuer();
    let (mut surfer, back) = begin();
    let code = back.split_once("code=").unwrap().1.split('&').next().unwrap();
    refused(&surfer.follow(&format!("{}&iss={issuer}", back.replace(code, "another-code"))), 400);
    let (mut surfer, back) = begin();
    let denied = surfer.follow(&format!("{}&error=access_denied&iss={issuer}", back.replace("code=", "x=")));
    refused(&denied, 403);
    assert!(denied.answer.text().contains("access_denied"));
    assert_eq!(site.service.requests(), 0);
}

#[test]
fn two_tabs_log_in_at_once_and_each_comes_back_to_its_own_page() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let mut surfer = Surfer::default();
    let tabs: Vec<_> = ["/a", "/b"].map(|page| (page, surfer.follow(&site.url(page)))).into();
    for (page, at) in tabs.iter().rev() {
        assert_eq!(surfer.log_in(at, "ann").url, site.url(page));
    }
    // Of more than five, the oldest are forgotten.
    let mut surfer = Surfer::default();
    let mut tabs = Vec::new();
    for number in 0..6 {
        let login = surfer.visit(&site.url(&format!("/{number}")));
        tabs.push(login.field("location").unwrap());
        wait::pause(wait::ms(1100));
    }
    assert_eq!(surfer.names(&site.origin).len(), 5);
    let at = surfer.follow(&tabs[0]);
    refused(&surfer.log_in(&at, "ann"), 400);
    assert_eq!(surfer.follow(&tabs[5]).url, site.url("/5"));
}

#[test]
fn nobody_is_sent_to_another_site_after_a_login() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    for bad in [
        "//evil.test",
        "/%5Cevil.test",
        "/%2F/evil.test",
        "https://evil.test",
        "%2F%2Fevil.test",
        "/%09/evil.test",
        "/.//evil.test",
    ] {
        refused(&Surfer::default().follow(&site.url(&format!("/.session/login?return_to={bad}"))), 400);
    }
    let mut surfer = Surfer::default();
    let at = surfer.follow(&site.url("/.session/login?return_to=%2Fa%3Fb%3Dc"));
    assert_eq!(surfer.log_in(&at, "ann").url, site.url("/a?b=c"));
}

#[test]
fn tokens_are_renewed_once_for_all_requests_that_come_together() {
    let Some(site) = Site::start(SHORT, "client_secret_basic", ", tokens: { authorization: access_token }") else {
        return;
    };
    let mut surfer = site.logged_in("ann");
    let before = site.program(&mut surfer).json()["headers"]["authorization"].as_str().unwrap().to_owned();
    assert!(before.starts_with("Bearer "));
    assert_eq!(site.provider.token_requests(), 1);
    wait::pause(OVER);
    let tokens: Vec<String> = thread::scope(|scope| {
        let ask = |mut surfer: Surfer| site.program(&mut surfer).json()["headers"]["authorization"].to_string();
        let all: Vec<_> = (0..8).map(|_| surfer.clone()).map(|surfer| scope.spawn(move || ask(surfer))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(site.provider.token_requests(), 2);
    assert!(tokens.iter().all(|token| *token == tokens[0] && !token.contains(&before)), "{tokens:?}");
    // The browser has the new session from here on.
    assert_eq!(user(&site.program(&mut surfer)), "ann");
    assert_eq!(site.provider.token_requests(), 2);
    wait::pause(OVER);
    assert_eq!(user(&site.program(&mut surfer)), "ann");
    assert_eq!(site.provider.token_requests(), 3);
}

#[test]
fn a_session_ends_where_the_issuer_renews_it_no_more_and_never_goes_on_by_an_outage() {
    let Some(mut site) = Site::start(SHORT, "client_secret_basic", "") else { return };
    let (mut ann, mut bob) = (site.logged_in("ann"), site.logged_in("bob"));
    site.provider.forget();
    wait::pause(OVER);
    let login = ann.clone().visit(&site.url("/page"));
    assert_eq!(login.status(), 303, "a browser logs in again");
    assert_eq!(site.program(&mut ann).status(), 401);
    assert_eq!(ann.names(&site.origin), Vec::<String>::new(), "the session is taken away");
    site.provider.kill();
    let answer = site.program(&mut bob);
    assert!(matches!(answer.status(), 401 | 503), "{}", answer.text());
}

#[test]
fn an_issuer_that_is_away_lets_nobody_in() {
    let Some(mut site) = Site::start(SHORT, "client_secret_basic", "") else { return };
    let mut ann = site.logged_in("ann");
    site.provider.kill();
    wait::pause(OVER);
    let answer = site.program(&mut ann);
    assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("caller.unknown")), "{}", answer.text());
    assert_eq!(ann.visit(&site.url("/page")).status(), 503);
    assert_eq!(ann.names(&site.origin), ["pylon_session"], "it goes on once the issuer is back");
}

#[test]
fn a_logout_ends_the_session_and_each_copy_of_it() {
    let Some(site) = Site::start(600, "client_secret_basic", ", after_logout: /goodbye") else { return };
    let mut ann = site.logged_in("ann");
    let mut copy = ann.clone();
    let foreign = ann.ask("GET", &site.url("/.session/logout"), &[PAGE, ("sec-fetch-site", "cross-site")], b"");
    assert_eq!(foreign.status(), 403);
    assert_eq!(user(&site.program(&mut ann)), "ann");
    let answer = ann.visit(&site.url("/.session/logout"));
    let to = answer.field("location").unwrap();
    assert_eq!(answer.status(), 303);
    assert!(to.starts_with(&format!("{}/session/end?", site.provider.issuer())), "{to}");
    assert!(to.contains("id_token_hint=ey") && to.contains(&format!("client_id={}", site.client.id)));
    assert!(to.contains("post_logout_redirect_uri=http") && to.ends_with("%2Fgoodbye"), "{to}");
    assert_eq!(ann.names(&site.origin), Vec::<String>::new());
    assert_eq!((site.program(&mut ann).status(), site.program(&mut copy).status()), (401, 401));
    let goodbye = sign_out(&mut ann, &to);
    assert_eq!((goodbye.url.as_str(), goodbye.answer.text().as_str()), (&*site.url("/goodbye"), "goodbye"));
}

#[test]
fn a_logout_at_the_issuer_ends_that_session_here_and_no_other() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let (mut ann, mut again, mut bob) = (site.logged_in("ann"), site.logged_in("ann"), site.logged_in("bob"));
    for one in [&mut ann, &mut again, &mut bob] {
        site.program(one);
    }
    sign_out(&mut ann, &format!("{}/session/end", site.provider.issuer()));
    wait::until(PATIENCE, "the issuer tells of the logout", || site.program(&mut ann.clone()).status() == 401);
    assert_eq!((user(&site.program(&mut again)), user(&site.program(&mut bob))), ("ann".into(), "bob".into()));
    let told = site.gate.logged("/.session/backchannel");
    assert_eq!((&told["status"], &told["route"]), (&200.into(), &"own:session-backchannel".into()));
    for body in [
        "",
        "logout_token=",
        "logout_token=a.b.c",
        "logout_token=eyJhbGciOiJub25lIn0.e30.",
        "logout_token=a&logout_token=b",
    ] {
        let answer = site.gate.ask("POST", "/.session/backchannel", &[], body.as_bytes());
        assert_eq!((answer.status(), answer.code().as_deref()), (400, Some("session.logout")), "{body}");
    }
    assert_eq!(site.gate.get("/.session/backchannel").status(), 401, "nothing of ours is there for GET");
}

#[test]
fn sessions_outlive_reloads_and_keys_that_turn_and_other_clients_have_none_of_them() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let mut ann = site.logged_in("ann");
    site.gate.apply(&site.document("file:key", ", idle: 30m"));
    assert_eq!(user(&site.program(&mut ann)), "ann");
    let mut copy = ann.clone();
    site.gate.apply(&site.document("[file:new-key, file:key]", ""));
    assert_eq!(user(&site.program(&mut ann)), "ann");
    site.gate.apply(&site.document("file:new-key", ""));
    assert_eq!(user(&site.program(&mut ann)), "ann", "it was sealed anew");
    assert_eq!(site.program(&mut copy).status(), 401, "its key is gone");
    let other = site.document("file:new-key", "").replace(&site.client.id, "somebody-else");
    site.gate.apply(&other);
    assert_eq!(site.program(&mut ann).status(), 401);
}

/// Failure 1: whatever is wrong with a document, nobody is let in for it.
#[test]
fn a_document_that_is_wrong_is_refused_and_what_cannot_work_lets_nobody_in() {
    let Some(site) = Site::start(600, "client_secret_basic", "") else { return };
    let good = site.document("file:key", "");
    for (from, to) in [
        ("session: {", "sesion: {"),
        ("issuer: ", "isuer: "),
        ("client_id: ", "clientid: "),
        ("file:secret", "file:not-there"),
        ("file:key", "file:not-there"),
        ("file:key", "short"),
        ("x-user: subject", "x-user: subjekt"),
        ("scopes: [email, groups]", "scopes: null"),
        ("issuer: \"http://127.0.0.1", "issuer: \"http://id.test"),
    ] {
        site.gate.write(&good.replacen(from, to, 1));
        let answer = site.gate.reload();
        assert_ne!(answer.status(), 200, "{from} {to}: {}", answer.text());
        assert_eq!(site.gate.get("/data").status(), 401);
    }
    // An issuer that is not there, or that is another one than it says.
    for issuer in [format!("http://{}", Upstream::nobody()), format!("{}/", site.provider.issuer())] {
        site.gate.apply(&good.replacen(&site.provider.issuer(), &issuer, 1));
        assert_eq!(site.gate.get("/data").status(), 401);
        assert_eq!(Surfer::default().visit(&site.url("/page")).status(), 503);
    }
    // The secret is wrong: a login comes to a page that says so, and to no session.
    std::fs::write(site.gate.folder().join("secret"), "wrong").unwrap();
    site.gate.apply(&good);
    let mut surfer = Surfer::default();
    let at = surfer.follow(&site.url("/first"));
    refused(&surfer.log_in(&at, "ann"), 503);
    assert_eq!(site.program(&mut surfer).status(), 401);
    assert_eq!(site.service.requests(), 0);
}

/// Says yes where the identity provider asks whether to log out, and goes where that leads.
pub(crate) fn sign_out(surfer: &mut Surfer, url: &str) -> Landed {
    let asked = surfer.follow(url);
    let text = asked.answer.text();
    let xsrf = text.split_once("name=\"xsrf\" value=\"").expect("a form").1.split('"').next().unwrap();
    let form = [PAGE, ("content-type", "application/x-www-form-urlencoded")];
    let action = format!("{}/session/end/confirm", asked.url.split_once("/session").unwrap().0);
    let answer = surfer.ask("POST", &action, &form, format!("xsrf={xsrf}&logout=yes").as_bytes());
    surfer.follow(&answer.field("location").unwrap_or(action))
}
