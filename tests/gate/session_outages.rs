//! Sessions in a Redis that is frozen, killed, closed by a password or somebody else: nobody is in by it, nobody waits, nobody runs in circles, and
//! all is well when it is back. Failures 1, 11 and 30.

use std::time::Duration;

use pylon_testkit::message::Message;
use pylon_testkit::redis::Redis;
use pylon_testkit::surfer::Surfer;
use pylon_testkit::tls::Authority;
use pylon_testkit::wait::{ms, now, pause, until};

use crate::session::{refused, user};
use crate::session_shared::{PATIENCE, Site};

/// Sessions in Redis, and sessions in cookies whose logouts are noted there.
const BOTH: [&str; 2] = ["store: redis", "logouts: redis"];
/// How long a request may take while Redis does not answer, which has a quarter of a second, on a machine that is busy.
const QUICK: Duration = Duration::from_secs(2);

/// Nobody knows: 503, and nothing of the service.
fn unknown(answer: &Message) -> bool {
    answer.status() == 503 && answer.code().as_deref() == Some("caller.unknown")
}

/// What becomes of requests while Redis is away.
fn is_closed(site: &Site, ann: &Surfer) {
    // A worker need not ask again for a second.
    pause(ms(1100));
    until(PATIENCE, "nobody is known any more", || (0..8).all(|number| unknown(&site.program(number % 2, ann))));
    let served = site.service.requests();
    let mut slowest = Duration::ZERO;
    for number in 0..40 {
        let begun = now();
        let mut browser = ann.clone();
        assert!(unknown(&site.program(number % 2, ann)));
        assert!(unknown(&browser.visit(&site.url(number % 2, "/page"))), "it is sent nowhere");
        assert!(
            unknown(&browser.visit(&site.url(number % 2, "/open/page"))),
            "whoever shows a session means to be known"
        );
        assert_eq!(browser.names(&site.url(0, "")), ["pylon_session"], "its session goes on once Redis is back");
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < 3 * QUICK, "{slowest:?}");
    // Who has no session is not sent to log in for one that could not be kept.
    let mut nobody = Surfer::default();
    assert!(unknown(&nobody.visit(&site.url(0, "/page"))) && unknown(&nobody.visit(&site.url(0, "/.session/login"))));
    assert_eq!(site.gates[0].get("/data").status(), 401);
    assert_eq!(site.service.requests(), served);
    assert_eq!(site.gates[0].get("/goodbye").status(), 200);
    assert_eq!(nobody.visit(&site.url(0, "/open/page")).status(), 200, "nobody is demanded there");
    // A logout that cannot be done is not said to be.
    let mut leaving = ann.clone();
    let answer = leaving.visit(&site.url(0, "/.session/logout"));
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("You are not logged out"), "{}", answer.text());
    assert_eq!(leaving.names(&site.url(0, "")), ["pylon_session"]);
}

fn is_well(site: &Site, ann: &Surfer) {
    until(PATIENCE, "all is well again", || (0..8).all(|number| site.program(number % 2, ann).status() == 200));
    assert_eq!(user(&site.program(0, ann)), "ann");
    assert_eq!(user(&site.program(0, &site.logged_in("bob"))), "bob");
}

#[test]
fn while_redis_is_frozen_nobody_is_in_nobody_waits_and_nobody_runs_in_circles() {
    for more in BOTH {
        let Some(site) = Site::start(600, more) else { return };
        let ann = site.logged_in("ann");
        assert_eq!(user(&site.program(0, &ann)), "ann");
        site.redis.freeze();
        let begun = now();
        let first = site.program(1, &ann);
        assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
        assert!(unknown(&first), "{}", first.text());
        is_closed(&site, &ann);
        site.redis.thaw();
        let thawed = now();
        is_well(&site, &ann);
        assert!(thawed.elapsed() < ms(8000), "{:?}", thawed.elapsed());
    }
}

#[test]
fn while_redis_is_gone_nobody_is_in_and_sessions_go_on_when_it_is_back() {
    for more in BOTH {
        let Some(mut site) = Site::start(600, more) else { return };
        let ann = site.logged_in("ann");
        site.redis.kill();
        is_closed(&site, &ann);
        site.redis.revive();
        is_well(&site, &ann);
    }
}

#[test]
fn a_login_that_cannot_be_kept_ends_on_a_page_that_says_so() {
    for more in BOTH {
        let Some(mut site) = Site::start(600, more) else { return };
        let mut ann = Surfer::default();
        let at = ann.follow(&site.url(0, "/first"));
        let back = ann.name_given(&at, "ann");
        site.redis.kill();
        refused(&ann.follow(&back), 503);
        assert!(!ann.names(&site.url(0, "")).contains(&"pylon_session".to_owned()));
        assert_eq!(site.program(0, &ann).status(), 401);
        // The issuer knows her by now: a login that goes on by itself must not go in circles.
        assert!(unknown(&ann.follow(&site.url(0, "/first")).answer));
        site.redis.revive();
        until(PATIENCE, "she is in", || ann.follow(&site.url(0, "/first")).answer.status() == 200);
        assert_eq!(user(&ann.visit(&site.url(0, "/data"))), "ann");
    }
}

#[test]
fn a_redis_that_takes_nothing_more_keeps_no_session_and_lets_nobody_in() {
    let Some(site) = Site::start(600, "store: redis") else { return };
    let ann = site.logged_in("ann");
    site.redis.say("CONFIG SET maxmemory 1");
    let mut bob = Surfer::default();
    let at = bob.follow(&site.url(0, "/first"));
    refused(&bob.log_in(&at, "bob"), 503);
    assert_eq!(site.program(0, &bob).status(), 401);
    assert_eq!(user(&site.program(0, &ann)), "ann", "what is there can be read");
    let answer = bob.ask("POST", &site.url(0, "/.session/backchannel"), &[], b"logout_token=a.b.c");
    assert_eq!(answer.status(), 400);
    site.redis.say("CONFIG SET maxmemory 0");
    is_well(&site, &ann);
}

#[test]
fn a_password_that_is_wrong_lets_nobody_in() {
    for more in BOTH {
        let redis = Redis::start_with(&["--requirepass", "hunter2"]);
        let Some(mut site) = Site::start_with(redis, 600, more, true) else { return };
        let url = site.redis.url();
        let with = |site: &mut Site, password: &str| {
            for gate in &site.gates {
                std::fs::write(gate.folder().join("password"), password).unwrap();
            }
            site.link = format!("{{ url: \"{url}\", password: file:password, timeout: 500ms }}");
            site.apply(&site.document("file:key", more));
        };
        with(&mut site, "hunter2");
        let ann = site.logged_in("ann");
        assert_eq!(user(&site.program(1, &ann)), "ann");
        for gate in &site.gates {
            std::fs::write(gate.folder().join("password"), "wrong").unwrap();
        }
        // The link that there is goes on; another one is not let in.
        site.link = format!("{{ url: \"{url}\", password: file:password, timeout: 400ms }}");
        site.apply(&site.document("file:key", more));
        is_closed(&site, &ann);
        with(&mut site, "hunter2");
        is_well(&site, &ann);
        assert!(site.gates.iter().all(|gate| !gate.stderr().contains("hunter2") && !gate.stdout().contains("hunter2")));
    }
}

#[test]
fn redis_is_spoken_to_under_tls_and_one_that_cannot_prove_itself_lets_nobody_in() {
    let (authority, other) = (Authority::default(), Authority::new("somebody else"));
    let Some(mut site) =
        Site::start_with(Redis::start_secure(&authority.issue(&["127.0.0.1"])), 600, "store: redis", true)
    else {
        return;
    };
    for gate in &site.gates {
        std::fs::write(gate.folder().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(gate.folder().join("other.pem"), other.pem()).unwrap();
    }
    let by = |site: &mut Site, url: &str, tls: &str| {
        site.link = format!("{{ url: \"{url}\"{tls} }}");
        site.apply(&site.document("file:key", "store: redis"));
    };
    let url = site.redis.secure_url();
    by(&mut site, &url, ", tls: { ca: ca.pem }");
    let ann = site.logged_in("ann");
    assert_eq!(user(&site.program(1, &ann)), "ann");
    // Of an authority that is not ours, whether it is another one or those of the system.
    for tls in [", tls: { ca: other.pem }", ""] {
        by(&mut site, &url, tls);
        is_closed(&site, &ann);
        assert!(site.gates[0].stderr().contains("certificate") || site.gates[0].stdout().contains("certificate"));
    }
    // One that speaks no TLS at all.
    let plain = site.redis.url().replace("redis://", "rediss://");
    by(&mut site, &plain, ", tls: { ca: ca.pem }");
    is_closed(&site, &ann);
    by(&mut site, &url, ", tls: { ca: ca.pem }");
    is_well(&site, &ann);
    // For another name than that by which it is asked for.
    let wrong = Redis::start_secure(&authority.issue(&["redis.test"]));
    by(&mut site, &wrong.secure_url(), ", tls: { ca: ca.pem }");
    is_closed(&site, &ann);
}
