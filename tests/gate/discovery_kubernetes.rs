//! Discovery by EndpointSlices of Kubernetes, against a double of the API server's list and watch.

use std::net::SocketAddr;

use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::kubernetes::ApiServer;
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::until;

use crate::discovery::{NEWS, becomes, complains, document, figures, nobody, rolls, source, view};

const ORDERS: &str = "kubernetes: { service: orders, namespace: shop, port: http }";

fn config(server: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: test
contexts: [{{ name: test, context: {{ cluster: test, user: gate, namespace: shop }} }}]
clusters: [{{ name: test, cluster: {{ server: \"{server}\", certificate-authority: ca.pem }} }}]
users: [{{ name: gate, user: {{ {user} }} }}]
"
    )
}

/// A gateway outside of the cluster.
fn outside(server: &ApiServer, discover: &str) -> Binary {
    let config = config(&format!("http://{}", server.address()), "token: secret-token");
    Binary::start_with(&document("kubernetes: { kubeconfig: kubeconfig }", discover), &[], |folder| {
        std::fs::write(folder.join("kubeconfig"), config).unwrap();
        std::fs::write(folder.join("ca.pem"), Authority::default().pem()).unwrap();
    })
}

fn at(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::from((ip, 7001))
}

#[test]
fn ready_endpoints_of_all_slices_are_found_and_changes_of_them_as_they_come() {
    let server = ApiServer::start(Some("secret-token"), 1);
    let [a, b, c] = [at([127, 0, 0, 1]), at([127, 0, 0, 2]), at([127, 0, 0, 3])];
    server.slice("orders-1", "orders", &[(a, true), (b, false)]);
    server.slice("orders-2", "orders", &[(c, true)]);
    server.slice("tips-1", "tips", &[(at([127, 0, 0, 9]), true)]);
    let gate = outside(&server, ORDERS);
    becomes(&gate, &[a, c]);
    assert_eq!(server.counts().0, 2, "a list of two slices has two pages here");
    assert_eq!(view(&gate)["endpoints"][0]["zone"], "eu-1a");
    server.slice("orders-1", "orders", &[(a, false), (b, true)]);
    becomes(&gate, &[b, c]);
    assert_eq!(figures(&gate, "kubernetes", "shop/orders:http"), (Some(2.0), Some(0.0), true));
    server.remove("orders-2");
    becomes(&gate, &[b]);
    server.remove("orders-1");
    becomes(&gate, &[]);
    nobody(&gate, "/gone", "kubernetes `shop/orders:http` names none");
    assert_eq!(server.counts().0, 2, "all of it by the watch");
}

#[test]
fn a_watch_that_ends_goes_on_from_where_it_was_and_one_that_is_too_old_begins_anew() {
    let server = ApiServer::start(None, 500);
    let [a, b] = [at([127, 0, 0, 1]), at([127, 0, 0, 2])];
    server.slice("orders-1", "orders", &[(a, true)]);
    let gate = outside(&server, ORDERS);
    becomes(&gate, &[a]);
    until(NEWS, "it is watched", || server.counts().1 == 1);
    server.end_watches();
    until(NEWS, "it is watched again", || server.counts().1 == 2);
    server.slice("orders-1", "orders", &[(b, true)]);
    becomes(&gate, &[b]);
    assert_eq!(server.counts().0, 1, "no list was needed");
    server.compact();
    server.end_watches();
    until(NEWS, "the list is read anew", || server.counts().0 == 2);
    server.slice("orders-1", "orders", &[(a, true)]);
    becomes(&gate, &[a]);
    assert_eq!(source(&gate)["failures"], 0, "that a version is too old is no failure");
}

#[test]
fn a_service_is_replaced_under_load_without_a_lost_request() {
    let server = ApiServer::start(None, 500);
    let gate = outside(&server, "kubernetes: { service: orders, port: http }");
    // Each in a slice of its own, since ports on loopback are what differs.
    rolls(
        &gate,
        |at| server.slice(&format!("orders-{}", at.port()), "orders", &[(at, true)]),
        |at| server.remove(&format!("orders-{}", at.port())),
    );
}

#[test]
fn in_a_cluster_the_service_account_is_used_and_its_token_read_again() {
    let (authority, server) = (Authority::default(), ApiServer::start(Some("token-one"), 500));
    let (a, b) = (at([127, 0, 0, 1]), at([127, 0, 0, 2]));
    server.slice("orders-1", "orders", &[(a, true)]);
    let secure =
        Terminator::before(server.address(), authority.server(&authority.issue(&["localhost"]), &["http/1.1"], false));
    let discovery = "kubernetes: { service_account: account }";
    let port = secure.url("localhost").rsplit_once(':').unwrap().1.to_owned();
    let environment = [("KUBERNETES_SERVICE_HOST", "localhost"), ("KUBERNETES_SERVICE_PORT", &port)];
    let gate =
        Binary::start_in(&document(discovery, "kubernetes: { service: orders, port: 7001 }"), &environment, |folder| {
            let account = folder.join("account");
            std::fs::create_dir(&account).unwrap();
            std::fs::write(account.join("ca.crt"), authority.pem()).unwrap();
            std::fs::write(account.join("token"), "token-one").unwrap();
            std::fs::write(account.join("namespace"), "shop").unwrap();
        });
    becomes(&gate, &[a]);
    std::fs::write(gate.folder().join("account/token"), "token-two").unwrap();
    server.demand("token-two");
    server.end_watches();
    server.slice("orders-1", "orders", &[(b, true)]);
    becomes(&gate, &[b]);
    server.demand("token-three");
    server.end_watches();
    complains(&gate, "401 Unauthorized: Unauthorized");
    assert!(!gate.stderr().contains("token-two"), "a token is never shown");
}

#[test]
fn a_port_that_is_not_there_is_told_with_those_that_are() {
    let server = ApiServer::start(None, 500);
    server.slice("orders-1", "orders", &[(at([127, 0, 0, 1]), true)]);
    let gate = outside(&server, "kubernetes: { service: orders, port: grpc }");
    complains(&gate, "slice `orders-1`: there is no port `grpc`, but `http` (7001)");
}

#[test]
fn outside_of_a_cluster_the_reason_is_told_and_a_plugin_is_refused_when_the_document_is_read() {
    let gate = Binary::start(&document("dns: {}", "kubernetes: orders"));
    nobody(&gate, "/nobody", "KUBERNETES_SERVICE_HOST is not set");
    let folder = tempfile::tempdir().unwrap();
    let text = document("kubernetes: { kubeconfig: kubeconfig }", "kubernetes: orders");
    std::fs::write(folder.path().join("pylon.yaml"), pylon_testkit::binary::complete(&text)).unwrap();
    let user = "exec: { command: aws, apiVersion: client.authentication.k8s.io/v1 }";
    std::fs::write(folder.path().join("kubeconfig"), config(&format!("http://{}", Upstream::nobody()), user)).unwrap();
    let outcome = pylon(folder.path(), ["check"]);
    assert!(outcome.code == Some(2) && outcome.stderr.contains("plugins are not run"), "{}", outcome.stderr);
}
