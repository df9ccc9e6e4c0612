//! Sessions, or the logouts of them, in a Redis that two gateways share: who is in at one is in at the other, and who is out at one is out at
//! both. Failure 1.

use std::thread;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::message::Message;
use pylon_testkit::provider::{Provider, Registered};
use pylon_testkit::redis::Redis;
use pylon_testkit::surfer::{PAGE, Surfer};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{self, ms, now, until};

use crate::session::{sign_out, user};

/// How long something may take on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// For how many seconds access tokens are good where they are to end.
const SHORT: u64 = 5;
/// As many seconds and some more.
const OVER: Duration = Duration::from_millis(SHORT * 1000 + 200);
/// By when whoever is out at one gateway is out at the other, which looks each second, on a machine that is busy.
const SOON: Duration = Duration::from_secs(4);

/// Sessions in Redis, and sessions in cookies whose logouts are noted there.
const BOTH: [&str; 2] = ["store: redis", "logouts: redis"];

/// Two gateways before a service, with logins at a provider. Back-channel logouts go to the first one.
pub(crate) struct Site {
    pub(crate) provider: Provider,
    pub(crate) redis: Redis,
    pub(crate) gates: [Binary; 2],
    pub(crate) service: Upstream,
    client: Registered,
    /// How the gateways come to Redis.
    pub(crate) link: String,
}

impl Site {
    /// None where there is no provider. `more` is what is written of sessions besides.
    pub(crate) fn start(access_tokens: u64, more: &str) -> Option<Self> {
        Self::start_with(Redis::start(), access_tokens, more, true)
    }

    /// The same with this Redis, and for a client that is told of the logouts of sessions or, without `sid`, of those of users.
    pub(crate) fn start_with(redis: Redis, access_tokens: u64, more: &str, sid: bool) -> Option<Self> {
        let provider = Provider::start(access_tokens)?;
        let gates = [(); 2].map(|()| Binary::start("routes: [{ match: /goodbye, respond: { body: goodbye } }]"));
        let client = provider.register_with(&format!("http://{}", gates[0].address()), "client_secret_basic", sid);
        for gate in &gates {
            std::fs::write(gate.folder().join("key"), "0123456789abcdef0123456789abcdef").unwrap();
            std::fs::write(gate.folder().join("new-key"), "fedcba9876543210fedcba9876543210").unwrap();
            std::fs::write(gate.folder().join("secret"), client.secret.as_deref().unwrap()).unwrap();
        }
        let link = format!("\"{}\"", redis.url());
        let site = Self { provider, redis, gates, service: Upstream::echo(), client, link };
        site.apply(&site.document("file:key", more));
        Some(site)
    }

    pub(crate) fn document(&self, keys: &str, more: &str) -> String {
        format!(
            "workers: 2\nstores: {{ redis: {} }}\nupstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
             defaults:\n  session: {{ issuer: \"{}\", client_id: \"{}\", client_secret: file:secret, keys: {keys}, scopes: [email, groups], \
             headers: {{ x-user: subject, x-email: claims.email }}, {more} }}\n\
             routes:\n  - {{ match: /goodbye, respond: {{ body: goodbye }}, session: off }}\n  \
             - {{ match: \"/open/{{*rest}}\", forward: api, anonymous: allow }}\n  - {{ match: \"/{{*rest}}\", forward: api }}\n",
            self.link,
            self.service.url(),
            self.provider.issuer(),
            self.client.id,
        )
    }

    pub(crate) fn apply(&self, document: &str) {
        self.gates.iter().for_each(|gate| gate.apply(document));
    }

    pub(crate) fn url(&self, gate: usize, path: &str) -> String {
        format!("http://{}{path}", self.gates[gate].address())
    }

    /// A browser that has logged in under this name at the first gateway, and has its cookies for both.
    pub(crate) fn logged_in(&self, name: &str) -> Surfer {
        let mut surfer = Surfer::default();
        let at = surfer.follow(&self.url(0, "/first"));
        let home = surfer.log_in(&at, name);
        assert_eq!((home.url.as_str(), home.answer.status()), (&*self.url(0, "/first"), 200), "{}", home.answer.text());
        surfer.also_at(&self.url(0, ""), &self.url(1, ""))
    }

    /// What a program gets with the cookies of this browser.
    pub(crate) fn program(&self, gate: usize, surfer: &Surfer) -> Message {
        surfer.clone().ask("GET", &self.url(gate, "/data"), &[("accept", "application/json")], b"")
    }

    /// Whether all workers of both gateways say that nobody is there.
    fn is_out(&self, surfer: &Surfer) -> bool {
        (0..8).all(|number| self.program(number % 2, surfer).status() == 401)
    }

    fn is_in(&self, surfer: &Surfer, name: &str) -> bool {
        (0..8).all(|number| user(&self.program(number % 2, surfer)) == name)
    }

    /// The names of all keys of Redis that begin so.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let said = self.redis.say(&format!("KEYS pylon:{prefix}*"));
        said.lines().filter(|line| line.starts_with("pylon:")).map(str::to_owned).collect()
    }
}

#[test]
fn a_session_in_redis_is_one_at_all_gateways_and_neither_browser_nor_redis_can_read_it() {
    let Some(site) = Site::start(600, "store: redis") else { return };
    // A name that no chance makes.
    let ann = site.logged_in("annabella");
    assert!(site.is_in(&ann, "annabella"));
    assert_eq!(site.program(1, &ann).json()["headers"]["x-email"], "annabella@id.test");
    assert_eq!(ann.names(&site.url(0, "")), ["pylon_session"]);
    let cookie = ann.value(&site.url(0, ""), "pylon_session").unwrap();
    assert!(cookie.len() < 160, "{cookie}");
    let kept = site.keys("session:");
    assert_eq!(kept.len(), 1, "{kept:?}");
    let said =
        site.keys("").iter().fold(String::new(), |said, key| said + key + &site.redis.say(&format!("SMEMBERS {key}")));
    let sealed = site.redis.say(&format!("GET {}", kept[0]));
    for secret in ["annabella", &site.client.id] {
        assert!(!said.contains(secret) && !sealed.contains(secret), "{secret}: {said} {sealed}");
    }
    // A restart ends no session, and one that idles is let go by Redis itself.
    let left: u64 = number(&site.redis.say(&format!("PTTL {}", kept[0])));
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(site.keys("sessions:").len(), 2, "by the issuer's session, and by the user");
}

#[test]
fn a_logout_at_one_gateway_ends_the_session_at_the_other_and_each_copy_of_it() {
    for more in BOTH {
        let Some(site) = Site::start(600, &format!("{more}, after_logout: /goodbye")) else { return };
        let (mut ann, again, bob) = (site.logged_in("ann"), site.logged_in("ann"), site.logged_in("bob"));
        let copy = ann.clone();
        assert!(site.is_in(&ann, "ann") && site.is_in(&again, "ann") && site.is_in(&bob, "bob"));
        let answer = ann.visit(&site.url(0, "/.session/logout"));
        let begun = now();
        let to = answer.field("location").unwrap();
        assert!(answer.status() == 303 && to.contains("id_token_hint=ey"), "{to}");
        assert_eq!(site.program(0, &copy).status(), 401, "here it is out at once");
        until(PATIENCE, "the copy is out at both", || site.is_out(&copy));
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(site.is_in(&again, "ann") && site.is_in(&bob, "bob"), "others go on");
        // Whoever begins anew is in.
        assert!(site.is_in(&site.logged_in("ann"), "ann"));
        // By now no worker remembers what it found before.
        wait::pause(ms(1100));
        assert!(site.is_out(&copy), "{more}");
    }
}

#[test]
fn a_logout_at_the_issuer_ends_its_session_or_all_of_the_user_at_all_gateways() {
    for (more, sid) in BOTH.into_iter().flat_map(|more| [(more, true), (more, false)]) {
        let Some(site) = Site::start_with(Redis::start(), 600, more, sid) else { return };
        let (mut ann, again, bob) = (site.logged_in("ann"), site.logged_in("ann"), site.logged_in("bob"));
        assert!(site.is_in(&ann, "ann") && site.is_in(&again, "ann") && site.is_in(&bob, "bob"));
        sign_out(&mut ann, &format!("{}/session/end", site.provider.issuer()));
        until(PATIENCE, "the session is out at both", || site.is_out(&ann));
        assert_eq!(site.gates[0].logged("/.session/backchannel")["status"], 200);
        if sid {
            assert!(site.is_in(&again, "ann"), "it is another session");
        } else {
            until(PATIENCE, "all of hers are", || site.is_out(&again));
        }
        assert!(site.is_in(&bob, "bob"));
        // A logout ends what began in the same second, too.
        wait::pause(ms(1100));
        assert!(site.is_in(&site.logged_in("ann"), "ann"), "{more} {sid}");
    }
}

#[test]
fn a_gateway_that_starts_anew_knows_of_the_logouts_before() {
    let Some(mut site) = Site::start(600, "logouts: redis") else { return };
    let (mut ann, bob) = (site.logged_in("ann"), site.logged_in("bob"));
    let copy = ann.clone();
    ann.visit(&site.url(0, "/.session/logout"));
    let document = site.document("file:key", "logouts: redis");
    let before = site.url(1, "");
    site.gates[1] = Binary::start_with(&document, &[], |folder| {
        std::fs::write(folder.join("key"), "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::write(folder.join("secret"), "x").unwrap();
    });
    let moved = |surfer: &Surfer| surfer.also_at(&before, &site.url(1, ""));
    assert!(site.is_in(&moved(&bob), "bob") && site.is_out(&moved(&copy)));
    // A store that has lost what it knew: nobody can say any more who was logged out. Moments are seconds, so that it is another one.
    wait::pause(ms(1100));
    site.redis.say("FLUSHALL");
    until(PATIENCE, "all log in again", || site.is_out(&moved(&bob)));
    wait::pause(ms(1100));
    assert!(site.is_in(&site.logged_in("bob"), "bob"));
}

/// The provider of the test ends a grant whose refresh token is used twice, so two gateways must not do that.
#[test]
fn tokens_are_renewed_once_for_all_requests_at_all_gateways() {
    let Some(site) = Site::start(SHORT, "store: redis, tokens: { authorization: access_token }") else { return };
    let ann = site.logged_in("ann");
    for renewals in 1..=2 {
        wait::pause(OVER);
        let tokens: Vec<String> = thread::scope(|scope| {
            let all: Vec<_> = (0..12)
                .map(|number| {
                    scope.spawn({
                        let (site, ann) = (&site, &ann);
                        move || site.program(number % 2, ann)
                    })
                })
                .collect();
            all.into_iter()
                .map(|one| {
                    let answer = one.join().unwrap();
                    assert_eq!(user(&answer), "ann");
                    answer.json()["headers"]["authorization"].as_str().unwrap().to_owned()
                })
                .collect()
        });
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
        assert_eq!(site.provider.token_requests(), 1 + renewals);
    }
    // Where the issuer renews no more, it is over for all.
    site.provider.forget();
    wait::pause(OVER);
    assert!(site.is_out(&ann));
    assert_eq!(site.keys("session:"), Vec::<String>::new());
}

#[test]
fn a_session_that_is_used_goes_on_and_one_that_is_not_ends_by_itself() {
    let Some(site) = Site::start(600, "store: redis, idle: 10s, lifetime: 1m") else { return };
    let (mut ann, bob) = (site.logged_in("ann"), site.logged_in("bob"));
    let begun = now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_secs(13) {
        let answer = ann.ask("GET", &site.url(1, "/data"), &[], b"");
        assert_eq!(user(&answer), "ann");
        written += usize::from(answer.field("set-cookie").is_some_and(|line| line.contains("Max-Age=10;")));
        wait::pause(ms(300));
    }
    assert!((5..=15).contains(&written), "{written}");
    assert_eq!(site.program(0, &bob).status(), 401, "nobody used it");
    assert_eq!(site.keys("session:").len(), 1);
}

#[test]
fn an_id_that_is_guessed_forged_moved_or_sealed_for_something_else_opens_nothing() {
    let Some(site) = Site::start(600, "store: redis") else { return };
    let (ann, bob) = (site.logged_in("ann"), site.logged_in("bob"));
    let origin = site.url(0, "");
    let cookie = ann.value(&origin, "pylon_session").unwrap().to_owned();
    let served = site.service.requests();
    let mut bad: Vec<String> =
        ["", "1.", "1.x", "x", "1.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "2.AQAA"].map(str::to_owned).into();
    bad.extend(site.keys("session:").iter().flat_map(|key| {
        let name = key.trim_start_matches("pylon:session:");
        [format!("1.{name}"), name.to_owned()]
    }));
    for place in [2, 9, 30, cookie.len() / 2, cookie.len() - 2] {
        let letter = if cookie.as_bytes()[place] == b'A' { "B" } else { "A" };
        bad.push(format!("{}{letter}{}", &cookie[..place], &cookie[place + 1..]));
    }
    bad.extend([format!("{cookie}A"), cookie[..cookie.len() - 1].to_owned(), format!("{cookie}{cookie}")]);
    for value in &bad {
        let mut thief = ann.with_value(&origin, "pylon_session", value);
        assert_eq!(site.program(0, &thief).status(), 401, "{value}");
        let login = thief.visit(&site.url(0, "/page"));
        assert_eq!(login.status(), 303, "{value}");
        assert!(!thief.names(&origin).contains(&"pylon_session".to_owned()), "it is taken away");
    }
    assert_eq!(site.service.requests(), served);
    // Whoever writes to Redis can put nobody's session in another's place, nor one of their own.
    let kept = site.keys("session:");
    site.redis.say(&format!("COPY {} {} REPLACE", kept[0], kept[1]));
    wait::pause(ms(1100));
    let users: Vec<u16> = [&ann, &bob].map(|one| site.program(0, one).status()).into();
    assert!(users == [200, 401] || users == [401, 200], "{users:?}");
    for key in &kept {
        site.redis.say(&format!("SET {key} garbage"));
    }
    until(PATIENCE, "garbage opens nothing", || site.is_out(&ann) && site.is_out(&bob));
    // Of another client, or by another key.
    let carl = site.logged_in("carl");
    site.apply(&site.document("file:new-key", "store: redis"));
    assert!(site.is_out(&carl));
}

#[test]
fn a_page_with_many_pictures_costs_one_question_for_each_worker_and_second() {
    for (more, command) in BOTH.into_iter().zip(["get", "mget"]) {
        let Some(site) = Site::start(600, more) else { return };
        let ann = site.logged_in("ann");
        site.redis.say("CONFIG RESETSTAT");
        let begun = now();
        for _ in 0..200 {
            assert_eq!(user(&site.program(1, &ann)), "ann");
        }
        let seconds = begun.elapsed().as_secs() + 1;
        let told = site.redis.say("INFO commandstats");
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        let calls: u64 =
            line.and_then(|line| line.split(',').next()).unwrap_or_else(|| panic!("{told}")).parse().unwrap();
        // Two workers.
        assert!((1..=2 * seconds).contains(&calls), "{calls} in {seconds} s");
    }
}

#[test]
fn sessions_outlive_reloads_and_keys_that_turn() {
    let Some(site) = Site::start(600, "store: redis") else { return };
    let mut ann = site.logged_in("ann");
    let old = ann.clone();
    site.apply(&site.document("[file:new-key, file:key]", "store: redis, idle: 30m"));
    assert_eq!(user(&ann.visit(&site.url(0, "/"))), "ann");
    let ann = ann.also_at(&site.url(0, ""), &site.url(1, ""));
    site.apply(&site.document("file:new-key", "store: redis"));
    assert!(site.is_in(&ann, "ann"), "it was sealed anew, in Redis and in the cookie");
    assert!(site.is_out(&old), "its key is gone");
}

/// Failure 1: whatever is wrong with a document, nobody is let in for it.
#[test]
fn a_document_that_is_wrong_is_refused_and_the_one_before_goes_on() {
    let Some(site) = Site::start(600, "store: redis") else { return };
    let ann = site.logged_in("ann");
    let good = site.document("file:key", "store: redis");
    for (from, to) in [
        ("store: redis", "store: rediss"),
        ("store: redis", "store:"),
        ("store: redis", "stores: redis"),
        ("store: redis", "store: redis, logouts: redis"),
        ("store: redis", "logouts: [redis]"),
        ("stores: { redis:", "stores: { reddis:"),
        ("stores: {", "#"),
        ("redis://", "http://"),
    ] {
        assert!(good.contains(from));
        site.gates[0].write(&good.replacen(from, to, 1));
        let answer = site.gates[0].reload();
        assert_eq!(answer.status(), 422, "{from} {to}: {}", answer.text());
        assert_eq!((site.gates[0].get("/data").status(), user(&site.program(0, &ann)).as_str()), (401, "ann"));
    }
    // Sessions of one kind are none of the other.
    site.apply(&site.document("file:key", "logouts: redis"));
    assert!(site.is_out(&ann));
    let login = ann.clone().ask("GET", &site.url(0, "/page"), &[PAGE], b"");
    assert_eq!(login.status(), 303);
}

/// A number as it stands on the wire.
fn number(said: &str) -> u64 {
    said.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("no number: {said}"))
}
