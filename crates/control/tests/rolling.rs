//! A document that is rolled out: which of two snapshots a request meets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails by a panic")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use pylon_config::load::Source;
use pylon_config::plan::PlainSecrets;
use pylon_control::gateway::Gateway;
use pylon_control::prepare::{Prepared, from_source};
use pylon_core::body::Body;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::units::Percent;
use pylon_net::handler::Handler;
use pylon_observe::Observer;
use pylon_proxy::engine::Engine;
use pylon_proxy::snapshot::Snapshot;
use pylon_proxy::world::{Stage, World};

fn prepared(status: u16) -> Prepared {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\ntelemetry: {{ access_log: off }}\ntrusted_proxies: 10.0.0.0/8\nroutes: [{{ match: /, respond: {status} }}]\n"
    );
    from_source(Source::from_text("t.yaml", &text).unwrap(), PlainSecrets::Refused).unwrap()
}

fn snapshot(status: u16) -> Snapshot {
    prepared(status).compiled.snapshot
}

struct Gate {
    world: Arc<World>,
    workers: Vec<Arc<Engine>>,
}

/// Workers whose one document answers 200.
fn gate() -> Gate {
    let prepared = prepared(200);
    let now = tokio::time::Instant::now().into_std();
    let metrics = Arc::clone(&prepared.lasting.metrics);
    let observer = Arc::new(Observer::open(&prepared.plan.telemetry, metrics, now).unwrap());
    let world = Arc::new(World::new(prepared.compiled.snapshot));
    let worker = || Arc::new(Engine::new(Arc::clone(&world), Arc::clone(&observer), Arc::default()));
    let workers = vec![worker(), worker()];
    Gate { world, workers }
}

impl Gate {
    /// What a client is answered on one of the workers; `by` is the proxy that brings it.
    async fn ask(&self, worker: usize, client: IpAddr, by: Option<IpAddr>) -> u16 {
        let now = tokio::time::Instant::now().into_std();
        let peer = SocketAddr::new(by.unwrap_or(client), 1);
        let connection = Arc::new(Connection::new(peer, peer, Scheme::Http, now));
        let mut request = http::Request::builder().header("host", "a");
        if by.is_some() {
            request = request.header("x-forwarded-for", client.to_string());
        }
        let engine = Arc::clone(&self.workers[worker]);
        engine.serve(request.body(Body::Empty).unwrap(), connection, now).await.status().as_u16()
    }

    /// What 1,000 clients are answered.
    async fn answers(&self) -> BTreeMap<u32, u16> {
        let mut answers = BTreeMap::new();
        for n in 0..1_000_u32 {
            let client = IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + n));
            let status = self.ask(0, client, None).await;
            assert_eq!(self.ask(1, client, None).await, status, "the same on every worker");
            assert_eq!(self.ask(0, client, Some([10, 0, 0, 1].into())).await, status, "the same by a trusted proxy");
            answers.insert(n, status);
        }
        answers
    }
}

fn percent(percent: u16) -> Percent {
    Percent::from_basis_points(percent * 100)
}

fn candidates(answers: &BTreeMap<u32, u16>) -> usize {
    answers.values().filter(|status| **status == 201).count()
}

#[tokio::test]
async fn at_no_share_nobody_meets_the_candidate_and_at_the_whole_everybody_does() {
    let gate = gate();
    gate.world.roll(snapshot(201), percent(0));
    assert!(matches!(gate.world.stage(), Stage::Rolling { .. }));
    assert_eq!(candidates(&gate.answers().await), 0);
    assert!(gate.world.share(percent(100)));
    assert_eq!(candidates(&gate.answers().await), 1_000);
}

#[tokio::test]
async fn a_client_stays_with_what_it_met_and_a_share_that_grows_only_gains_clients() {
    let gate = gate();
    gate.world.roll(snapshot(201), percent(10));
    let few = gate.answers().await;
    assert!((60..140).contains(&candidates(&few)), "{}", candidates(&few));
    assert_eq!(gate.answers().await, few);
    gate.world.share(percent(50));
    let half = gate.answers().await;
    assert!((440..560).contains(&candidates(&half)), "{}", candidates(&half));
    assert!(few.iter().all(|(client, status)| *status == 200 || half[client] == 201));
    // Another candidate is tried on other clients.
    gate.world.roll(snapshot(202), percent(10));
    let others: Vec<_> = gate.answers().await.into_iter().filter(|(_, status)| *status == 202).collect();
    assert!(others.iter().filter(|(client, _)| few[client] == 201).count() < others.len() / 2);
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_client() {
    let gate = gate();
    gate.world.roll(snapshot(201), percent(50));
    for network in 0..50_u16 {
        let one = gate.ask(0, IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, 1]), None).await;
        let other = gate.ask(1, IpAddr::from([0x2001, 0xdb8, 0, network, 9, 8, 7, 6]), None).await;
        assert_eq!(one, other);
    }
}

#[tokio::test]
async fn a_candidate_is_promoted_or_taken_back_and_what_is_over_leaves_memory() {
    let gate = gate();
    assert!(!gate.world.promote() && !gate.world.take_back() && !gate.world.share(percent(1)));
    gate.world.roll(snapshot(201), percent(50));
    gate.answers().await;
    assert_eq!(gate.world.clear(), 2);
    assert!(gate.world.take_back());
    assert_eq!(candidates(&gate.answers().await), 0);
    assert_eq!(gate.world.clear(), 1);
    gate.world.roll(snapshot(201), percent(1));
    assert!(gate.world.promote());
    assert_eq!(candidates(&gate.answers().await), 1_000);
    assert_eq!(gate.world.clear(), 1);
    gate.world.roll(snapshot(204), percent(1));
    gate.world.swap(snapshot(203));
    assert!(gate.answers().await.values().all(|status| *status == 203));
    assert_eq!(gate.world.clear(), 1);
    assert!(matches!(gate.world.stage(), Stage::Steady(_)));
}

/// What a gateway that runs says of a request from this client.
fn explained(gateway: &Gateway, path: &str, client: &str, field: &str) -> serde_json::Value {
    let question = serde_json::json!({
        "method": "GET", "url": path, "client": client, "headers": [["x-forwarded-for", field]]
    });
    let question = question.to_string();
    let mut stream = TcpStream::connect(gateway.admin.unwrap()).unwrap();
    let head = "POST /api/explain HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{question}", question.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_live_explanation_is_by_the_document_that_the_client_meets_and_tells_what_the_other_one_answers() {
    let document = |status: u16| {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\ntelemetry: {{ access_log: off }}\ntrusted_proxies: 10.0.0.0/8\nroutes:\n- {{ match: /, respond: {status} }}\n- {{ match: /same, respond: 204 }}\n"
        );
        from_source(Source::from_text("t.yaml", &text).unwrap(), PlainSecrets::Refused).unwrap()
    };
    let gateway = Gateway::start(document(200)).unwrap();
    let stable = gateway.world().current().hash.clone();
    let told = explained(&gateway, "/", "192.0.2.1", "198.51.100.1");
    assert_eq!((&told["document"], told.get("rollout")), (&stable.as_str().into(), None));
    gateway.control().block_on(gateway.try_out(document(201), percent(50)));
    let candidate = gateway.world().stage().all()[1].hash.clone();
    let mut met = BTreeMap::from([("stable", 0), ("candidate", 0)]);
    for n in 0..20 {
        let client = format!("192.0.2.{n}");
        let told = explained(&gateway, "/", &client, "198.51.100.1");
        let (meets, text) = (told["rollout"]["meets"].as_str().unwrap(), told["text"].as_str().unwrap());
        *met.get_mut(meets).unwrap() += 1;
        let serves = Arc::ptr_eq(gateway.world().stage().met_by(client.parse().unwrap()), &gateway.world().current());
        assert_eq!(meets == "stable", serves);
        let [stable_says, candidate_says] = [("respond 200", &stable), ("respond 201", &candidate)];
        let ((ours, hash), (other, _)) =
            if serves { (stable_says, candidate_says) } else { (candidate_says, stable_says) };
        let (own, of_other) = (text.find(ours).unwrap(), text.find(other).unwrap());
        assert!(own < of_other && text.contains(&format!("this client   meets the {meets}")), "{text}");
        assert!(
            text.contains(&format!("50% of the clients meet the candidate {candidate}, the others {stable}")),
            "{text}"
        );
        assert_eq!((told["document"].as_str().unwrap(), &told["rollout"]["share"]), (hash.as_str(), &"50%".into()));
        assert_ne!(told["rollout"]["other"]["document"], told["document"]);
        // A proxy brings its client along; who is no proxy does not.
        let brought = explained(&gateway, "/", "10.0.0.1", &client);
        assert_eq!(brought["rollout"]["meets"], meets);
        // Where both answer the same, it is told once.
        let same = explained(&gateway, "/same", &client, "198.51.100.1");
        assert!(same["rollout"].get("other").is_none() && same["text"].as_str().unwrap().contains("answers the same"));
    }
    assert!(met.values().all(|met| *met > 0), "{met:?}");
    assert!(gateway.world().take_back());
    assert!(explained(&gateway, "/", "192.0.2.1", "198.51.100.1").get("rollout").is_none());
    gateway.shut_down(std::time::Duration::ZERO);
}
