//! Logins in a real browser, under HTTPS, at a certified identity provider on another site.

use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::browser::{Browser, Tab};
use pylon_testkit::provider::Provider;
use pylon_testkit::redis::Redis;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait;

/// How long something may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how many seconds access tokens are good.
const SHORT: u64 = 2;

/// What `fetch` gets: the status, or the user that the service was told of.
fn fetched(browser: &mut Browser, tab: &Tab, path: &str) -> String {
    let expression = format!(
        "fetch('{path}').then(async (answer) => answer.ok ? (await answer.json()).headers['x-user'] : String(answer.status))"
    );
    browser.run(tab, &expression).as_str().unwrap_or_default().to_owned()
}

fn document(provider: &Provider, service: &Upstream, listeners: &str, session: &str) -> String {
    let issuer = provider.issuer();
    format!(
        "{listeners}\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\nroutes:\n  - {{ match: /goodbye, respond: {{ body: goodbye }} }}\n  \
         - {{ match: \"/{{*rest}}\", forward: api, session: {{ issuer: \"{issuer}\", {session}, keys: file:key, \
         headers: {{ x-user: subject }}, after_logout: /goodbye }} }}\n",
        service.url()
    )
}

#[test]
fn a_browser_logs_in_stays_in_logs_out_and_is_logged_out() {
    browses("", "");
}

#[test]
fn a_browser_does_the_same_with_its_session_in_redis() {
    let redis = Redis::start();
    browses(&format!("stores: {{ redis: \"{}\" }}\n", redis.url()), ", store: redis");
}

/// Goes through the life of a session, of which `more` is written, in a document with these stores.
fn browses(stores: &str, more: &str) {
    let Some((provider, mut browser)) = Provider::start(SHORT).zip(Browser::start()) else { return };
    let service = Upstream::echo();
    let listeners = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]";
    let listeners = &format!("{stores}{listeners}");
    let hello = format!("{listeners}\nroutes: [{{ match: /goodbye, respond: {{ body: goodbye }} }}]");
    let gate = Binary::start_with(&hello, &[], |folder| {
        Authority::default().issue(&["localhost"]).write(folder, "a");
        std::fs::write(folder.join("key"), "0123456789abcdef0123456789abcdef").unwrap();
    });
    // Another site than that of the provider, which is an address of numbers.
    let origin = format!("https://localhost:{}", gate.address().port());
    let client = provider.register(&origin, "client_secret_basic");
    std::fs::write(gate.folder().join("secret"), client.secret.as_deref().unwrap()).unwrap();
    let session = format!("client_id: \"{}\", client_secret: file:secret{more}", client.id);
    gate.apply(&document(&provider, &service, listeners, &session));
    let is = |path: &'static str| {
        let url = format!("{origin}{path}");
        move |at: &str| at == url
    };

    // It logs in and comes back to where it was.
    let tab = browser.tab();
    browser.go(&tab, &format!("{origin}/page?a=b"), |url| url.contains("/interaction/"));
    browser.give_name(&tab, "ann");
    let page = browser.arrives(&tab, is("/page?a=b"));
    assert!(page.contains("\"x-user\":\"ann\""), "{page}");
    let cookies: Vec<_> =
        browser.cookies().into_iter().filter(|cookie| cookie["name"].as_str().unwrap().contains("pylon")).collect();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    let cookie = &cookies[0];
    assert_eq!((&cookie["name"], &cookie["path"]), (&"__Host-pylon_session".into(), &"/".into()));
    assert_eq!(
        (&cookie["httpOnly"], &cookie["secure"], &cookie["sameSite"]),
        (&true.into(), &true.into(), &"Lax".into())
    );
    assert_eq!(browser.run(&tab, "document.cookie"), "");

    // Tokens end meanwhile, and are renewed without a word.
    let before = provider.token_requests();
    wait::until(PATIENCE, "tokens are renewed", || {
        assert_eq!(fetched(&mut browser, &tab, "/data"), "ann");
        provider.token_requests() > before
    });

    // It logs out here and there.
    browser.go(&tab, &format!("{origin}/.session/logout"), |url| url.contains("/session/end"));
    browser.run(&tab, "document.querySelector('button[name=logout]').click(); true");
    assert_eq!(browser.arrives(&tab, is("/goodbye")), "goodbye");
    assert_eq!(fetched(&mut browser, &tab, "/data"), "401");

    // Two tabs log in at once.
    let other = browser.tab();
    browser.go(&tab, &format!("{origin}/one"), |url| url.contains("/interaction/"));
    browser.go(&other, &format!("{origin}/two"), |url| url.contains("/interaction/"));
    browser.give_name(&other, "ann");
    browser.arrives(&other, is("/two"));
    browser.give_name(&tab, "ann");
    browser.arrives(&tab, is("/one"));

    // What comes back by force belongs to no login.
    let forged = format!("{origin}/.session/callback?code=x&state=0123456789abcdef");
    let page = browser.go(&other, &forged, |url| url.contains("/callback"));
    assert!(page.contains("This login cannot be finished"), "{page}");
    assert_eq!(fetched(&mut browser, &tab, "/data"), "ann");

    // A logout at the provider ends the session here.
    browser.go(&other, &format!("{}/session/end", provider.issuer()), |url| url.contains("/session/end"));
    browser.run(&other, "document.querySelector('button[name=logout]').click(); true");
    wait::until(PATIENCE, "the session is over", || fetched(&mut browser, &tab, "/data") == "401");
}
