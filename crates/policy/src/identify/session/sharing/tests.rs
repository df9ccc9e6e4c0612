//! What shared sessions are held to, at a real Redis: two gateways that hinder each other in nothing but what must be done once, and a store that
//! is away, or forgets.

use pylon_store::link::Redis;
use pylon_store::spec::RedisSpec;
use pylon_testkit::redis::Redis as Server;
use pylon_testkit::wait;
use tokio::runtime::Handle;

use super::*;
use crate::identify::session::tests::{KEY, forgotten, page, ticket, with};
use crate::identify::session::{After, Session};
use crate::policy::{Policy as _, Service as _, Step, Stop};
use crate::testing::{Seen, compile_with, plain_secrets, resolver, stopped};

/// How long something may take on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);

/// A gateway with a link of its own to this server.
async fn gateway(server: &Server, more: &str) -> Session {
    let spec: RedisSpec = serde_json::from_str(&format!(r#"{{ "url": "{}" }}"#, server.url())).unwrap();
    let link = Redis::new(&spec, &resolver(), plain_secrets).unwrap();
    link.start(&Handle::current());
    link.settle().await;
    let json = format!(r#"{{ "issuer": "https://id.test", "client_id": "shop", "keys": "{KEY}", {more} }}"#);
    let policy: Session = compile_with(&json, |around| around.store = Some(Arc::new(link))).unwrap();
    policy.doors.party.start(&Handle::current());
    policy
}

/// Two gateways that share their sessions.
async fn gateways(server: &Server, more: &str) -> [Session; 2] {
    [gateway(server, more).await, gateway(server, more).await]
}

fn shelf(policy: &Session) -> &Shelf {
    policy.doors.party.shelf.as_ref().unwrap()
}

/// A request with the id of a session, under HTTPS.
fn with_id(policy: &Session, ticket: &Ticket) -> Seen {
    let party = &policy.doors.party;
    let jar = party.names.of(pylon_core::connection::Scheme::Https);
    let envelope = party.sealed_id(ticket, jar).unwrap();
    page().header("cookie", &format!("{}=1.{envelope}", jar.name()))
}

/// Who a request is of, and what is left to do with the answer; else the code of the refusal.
async fn meet(policy: &Session, seen: &Seen) -> Result<(Option<String>, Option<Box<After>>), &'static str> {
    let (mut req, mut cx) = seen.start();
    let outcome = match policy.on_request(&mut req, &mut cx) {
        Step::Done(outcome) => outcome,
        Step::Wait(waiting) => waiting.await,
    };
    let after = outcome.map_err(|stop| stopped::<()>(Err::<(), Stop>(stop)))?;
    Ok((cx.caller.as_ref().map(|caller| caller.subject.to_string()), after))
}

async fn who(policy: &Session, seen: &Seen) -> Result<Option<String>, &'static str> {
    meet(policy, seen).await.map(|(who, _)| who)
}

#[tokio::test]
async fn a_session_that_one_gateway_keeps_proves_a_caller_at_all_of_them_until_one_ends_it() {
    let server = Server::start();
    let [one, other] = gateways(&server, r#""store": "redis""#).await;
    let ann = ticket(0);
    one.doors.party.keep(&ann).await.unwrap();
    let seen = with_id(&one, &ann);
    for policy in [&one, &other] {
        let (caller, after) = meet(policy, &seen).await.unwrap();
        assert!(caller.as_deref() == Some("ann") && after.is_none());
    }
    // What was written to cookies is none here, whatever it says.
    assert_eq!(who(&one, &with(&one, &ann)).await, Ok(None));
    // At once here, and elsewhere once nobody remembers it.
    let envelope = one.doors.party.sealed_id(&ann, one.doors.party.names.of(pylon_core::connection::Scheme::Https));
    let jar = one.doors.party.names.of(pylon_core::connection::Scheme::Https);
    let ended = one.doors.party.end_shown(envelope.unwrap().as_bytes(), jar).await.unwrap();
    assert_eq!(ended.unwrap().id, ann.id);
    let (caller, after) = meet(&one, &seen).await.unwrap();
    assert!(caller.is_none() && forgotten(after) == 1);
    let begun = wait::now();
    while who(&other, &seen).await != Ok(None) {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_session_whose_end_is_near_is_put_off_by_use_and_one_that_was_taken_away_is_not() {
    let server = Server::start();
    let policy = gateway(&server, r#""store": "redis", "idle": "100s", "lifetime": "10m""#).await;
    let (shelf, ann) = (shelf(&policy), ticket(0));
    policy.doors.party.keep(&ann).await.unwrap();
    shelf.touch(&ann.id, spans(95), &[]).await.unwrap();
    assert!(meet(&policy, &with_id(&policy, &ann)).await.unwrap().1.is_none(), "it was used a moment ago");
    shelf.touch(&ann.id, spans(85), &[]).await.unwrap();
    let (caller, after) = meet(&policy, &with_id(&policy, &ann)).await.unwrap();
    let Some(After::Write(cookies)) = after.map(|after| *after) else { panic!("it is not written") };
    assert!(caller.is_some() && cookies[0].to_str().unwrap().contains("Max-Age="));
    let left = shelf.get(&ann.id).await.unwrap().unwrap().left;
    assert!(left > Duration::from_secs(95), "{left:?}");
    // Where it could idle for longer before, that holds no more from its next use on.
    shelf.touch(&ann.id, spans(500), &[]).await.unwrap();
    assert!(meet(&policy, &with_id(&policy, &ann)).await.unwrap().1.is_some());
    assert!(shelf.get(&ann.id).await.unwrap().unwrap().left <= Duration::from_secs(100));
    // Its lifetime is put off by nothing.
    let old = Ticket { id: "old".into(), ..ticket(595) };
    policy.doors.party.keep(&old).await.unwrap();
    assert!(shelf.get("old").await.unwrap().unwrap().left <= Duration::from_secs(5));
    let over = Ticket { id: "over".into(), ..ticket(601) };
    shelf.set("over", &policy.doors.party.sealed(&over).unwrap(), spans(60), (&[], over.begun)).await.unwrap();
    assert_eq!(who(&policy, &with_id(&policy, &over)).await, Ok(None));
    assert!(!shelf.touch("none", spans(9), &[]).await.unwrap());
}

fn spans(seconds: u64) -> Spans {
    Spans { unused: Duration::from_secs(seconds), longest: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn a_login_that_was_ended_before_it_is_kept_comes_to_nothing() {
    let server = Server::start();
    let [one, other] = gateways(&server, r#""store": "redis""#).await;
    let soon = unix_now().as_secs() + 60;
    for (token, name) in [("1", Name::Subject("ann")), ("2", Name::Sid("s1"))] {
        let ann = Ticket { begun: shelf(&one).moment().await.unwrap(), ..ticket(0) };
        other.doors.party.end_named(name, token, soon).await.unwrap();
        assert!(matches!(one.doors.party.keep(&ann).await, Err(Failed::Refused(_))), "{name:?}");
        assert_eq!(shelf(&one).get(&ann.id).await, Ok(None));
        // One that begins later is another matter.
        let later = Ticket { begun: ann.begun + 2, ..ann };
        one.doors.party.keep(&later).await.unwrap();
        assert_eq!(who(&other, &with_id(&other, &later)).await, Ok(Some("ann".to_owned())));
        server.say("FLUSHALL");
    }
}

#[tokio::test]
async fn a_logout_token_is_good_once_at_whichever_gateway_and_again_if_nothing_came_of_it() {
    let mut server = Server::start();
    for more in [r#""store": "redis""#, r#""logouts": "redis""#] {
        let [one, other] = gateways(&server, more).await;
        let soon = unix_now().as_secs() + 60;
        let end =
            async |policy: &Session, token: &str| policy.doors.party.end_named(Name::Subject("ann"), token, soon).await;
        assert_eq!(end(&one, more).await, Ok(()));
        for policy in [&one, &other] {
            assert!(matches!(end(policy, more).await, Err(Failed::Refused(_))));
        }
        server.kill();
        let later = format!("{more} later");
        assert!(matches!(end(&one, &later).await, Err(Failed::Unknown(_))));
        server.revive();
        let begun = wait::now();
        while end(&one, &later).await != Ok(()) {
            assert!(begun.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_gateway_waits_for_the_tokens_that_another_one_gets() {
    let server = Server::start();
    let [one, other] = gateways(&server, r#""store": "redis""#).await;
    let ann = Ticket { refresh: Some("first".into()), ..ticket(10) };
    one.doors.party.keep(&ann).await.unwrap();
    assert!(shelf(&one).lock(&ann.id, "one").await.unwrap());
    let (party, before) = (Arc::clone(&other.doors.party), ann.clone());
    let waits = tokio::spawn(async move { party.renew_shared(party.shelf.as_ref().unwrap(), &before).await });
    tokio::time::sleep(LOOK * 3).await;
    assert!(!waits.is_finished());
    let renewed = Ticket { refresh: Some("second".into()), ends: ann.ends + 300, ..ann.clone() };
    assert!(one.doors.party.replace(shelf(&one), &renewed).await.unwrap());
    assert_eq!(waits.await.unwrap().unwrap().refresh.as_deref(), Some("second"));
    // Whoever comes when it is done looks again before it asks: nobody answers at this issuer.
    shelf(&one).unlock(&ann.id, "one").await;
    let party = &other.doors.party;
    let again = party.renew_shared(shelf(&other), &ann).await;
    assert_eq!(again.unwrap().refresh.as_deref(), Some("second"));
    assert!(shelf(&one).lock(&ann.id, "one").await.unwrap(), "it left it to others");
    shelf(&one).unlock(&ann.id, "one").await;
    // The issuer does not answer: the session stays as it is. It is ended meanwhile: there is nothing to renew.
    assert!(matches!(party.renew_shared(shelf(&other), &renewed).await, Err(Failed::Unknown(_))));
    assert!(shelf(&one).get(&ann.id).await.unwrap().is_some());
    shelf(&one).delete(&ann.id, &[]).await.unwrap();
    assert!(matches!(party.renew_shared(shelf(&other), &renewed).await, Err(Failed::Refused(_))));
    assert!(!party.replace(shelf(&other), &renewed).await.unwrap());
}

#[tokio::test]
async fn new_tokens_are_kept_though_the_store_was_away_when_they_came() {
    let mut server = Server::start();
    let policy = gateway(&server, r#""store": "redis""#).await;
    let ann = Ticket { refresh: Some("first".into()), ..ticket(10) };
    policy.doors.party.keep(&ann).await.unwrap();
    assert!(shelf(&policy).lock(&ann.id, "word").await.unwrap());
    server.kill();
    let renewed = Ticket { refresh: Some("second".into()), ..ann.clone() };
    assert!(policy.doors.party.replace(shelf(&policy), &renewed).await.is_err());
    let party = Arc::clone(&policy.doors.party);
    let later = tokio::spawn(async move { party.keep_later(renewed, "word").await });
    server.revive();
    later.await.unwrap();
    let kept = shelf(&policy).get(&ann.id).await.unwrap().unwrap();
    let (ticket, _) = policy.doors.party.unsealed(&ann.id, &kept).unwrap();
    assert_eq!(ticket.refresh.as_deref(), Some("second"));
    assert!(shelf(&policy).lock(&ann.id, "other").await.unwrap(), "it left it to others");
}

#[tokio::test]
async fn sessions_of_cookies_are_over_where_they_were_ended_and_where_nobody_knows_that_any_more() {
    let server = Server::start();
    let [one, other] = gateways(&server, r#""logouts": "redis""#).await;
    let begun = shelf(&one).moment().await.unwrap();
    let ann = Ticket { begun, ..ticket(0) };
    assert_eq!(who(&other, &with(&other, &ann)).await, Ok(Some("ann".to_owned())));
    // Others of hers, which no worker has seen.
    let fresh = |id: &str, begun| Ticket { id: id.into(), begun, ..ticket(0) };
    for (name, id) in [(Name::Session("a"), "a"), (Name::Sid("s1"), "b"), (Name::Subject("ann"), "c")] {
        shelf(&one).end(name).await.unwrap();
        assert_eq!(who(&other, &with(&other, &fresh(id, begun))).await, Ok(None), "{name:?}");
        let later = with(&other, &fresh(id, begun + 60));
        assert_eq!(who(&other, &later).await, Ok(Some("ann".to_owned())), "it began later");
        server.say("FLUSHALL");
        shelf(&one).moment().await.unwrap();
    }
    // A store that knows nothing knows of no logout either.
    server.say("FLUSHALL");
    assert_eq!(who(&other, &with(&other, &fresh("d", begun - 5))).await, Ok(None));
    assert_eq!(who(&other, &with(&other, &fresh("e", begun + 60))).await, Ok(Some("ann".to_owned())));
}

#[tokio::test]
async fn where_the_store_does_not_answer_nobody_is_known_and_no_cookie_is_lost() {
    let mut server = Server::start();
    for more in [r#""store": "redis""#, r#""logouts": "redis""#] {
        let policy = gateway(&server, more).await;
        let party = &policy.doors.party;
        let ann = Ticket { begun: shelf(&policy).moment().await.unwrap(), ..ticket(0) };
        party.keep(&ann).await.unwrap();
        let seen = if shelf(&policy).holds { with_id(&policy, &ann) } else { with(&policy, &ann) };
        server.freeze();
        let begun = wait::now();
        assert_eq!(who(&policy, &seen).await, Err("caller.unknown"));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        server.thaw();
        server.kill();
        assert_eq!(who(&policy, &seen).await, Err("caller.unknown"));
        assert!(!shelf(&policy).is_up());
        // What is forged is forged, whoever is away.
        let forged = page().header("cookie", "__Host-pylon_session=1.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(who(&policy, &forged).await, Ok(None));
        server.revive();
        let begun = wait::now();
        while who(&policy, &seen).await != Ok(Some("ann".to_owned())) {
            assert!(begun.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
