//! What slices say, by objects as an API server of 1.30 sends them, abridged.

use super::*;
use crate::discovery::kubernetes::KubernetesServiceSpec;

fn seen(slices: &[Value]) -> Seen {
    let mut seen = Seen::default();
    for slice in slices {
        let slice: Slice = serde_json::from_value(slice.clone()).unwrap();
        seen.slices.insert(slice.metadata.name.clone(), slice);
    }
    seen
}

fn shop() -> Value {
    serde_json::json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "name": "orders-x7k2p", "namespace": "shop", "resourceVersion": "100",
            "labels": { "kubernetes.io/service-name": "orders" } },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": ["10.1.0.1"], "conditions": { "ready": true, "serving": true, "terminating": false },
              "nodeName": "n1", "zone": "eu-1a", "targetRef": { "kind": "Pod", "name": "orders-1" } },
            { "addresses": ["10.1.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true }, "zone": "eu-1b" },
            { "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": false, "terminating": false } },
            { "addresses": ["10.1.0.4"], "conditions": {} },
            { "addresses": ["10.1.0.5"], "conditions": { "ready": true, "serving": true, "terminating": true } },
        ],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "metrics", "port": 9090, "protocol": "TCP" }],
    })
}

fn found(seen: &Seen, port: Option<&PortSpec>) -> (Vec<String>, Option<String>) {
    let (targets, trouble) = seen.targets(port);
    (targets.iter().map(ToString::to_string).collect(), trouble)
}

fn name(name: &str) -> PortSpec {
    PortSpec::Name(name.to_owned())
}

#[test]
fn what_is_ready_and_does_not_end_is_an_endpoint_with_its_zone() {
    let seen = seen(&[shop()]);
    let (targets, trouble) = seen.targets(Some(&name("http")));
    let targets: Vec<_> = targets.iter().map(|one| (one.to_string(), one.whereabouts.zone.as_deref())).collect();
    assert_eq!(targets, [("10.1.0.1:8080".to_owned(), Some("eu-1a")), ("10.1.0.4:8080".to_owned(), None)]);
    assert_eq!(trouble, None);
}

#[test]
fn hints_say_for_whom_an_endpoint_is_meant() {
    let mut slice = shop();
    slice["endpoints"][0]["hints"] = serde_json::json!({ "forZones": [{ "name": "eu-1b" }, { "name": "eu-1c" }] });
    let (targets, _) = seen(&[slice]).targets(Some(&name("http")));
    let serves: Vec<_> = targets.iter().map(|one| one.whereabouts.serves.as_deref()).collect();
    assert_eq!(serves, [Some(&[Arc::from("eu-1b"), Arc::from("eu-1c")][..]), None]);
}

#[test]
fn a_port_is_found_by_name_or_number_or_is_the_only_one() {
    let mut slice = shop();
    let several = seen(&[slice.clone()]);
    assert_eq!(found(&several, Some(&PortSpec::Number(9090))).0[0], "10.1.0.1:9090");
    for (port, why) in [
        (None, "several ports, `http` (8080), `metrics` (9090)"),
        (Some(name("grpc")), "no port `grpc`, but `http` (8080)"),
        (Some(PortSpec::Number(1)), "no port `1`"),
    ] {
        let (targets, trouble) = found(&several, port.as_ref());
        let trouble = trouble.unwrap();
        assert!(targets.is_empty() && trouble.contains(why), "{trouble}");
    }
    slice["ports"] = serde_json::json!([{ "port": 8080 }]);
    assert_eq!(found(&seen(&[slice.clone()]), None).0.len(), 2);
    slice["ports"] = Value::Null;
    assert_eq!(found(&seen(&[slice.clone()]), Some(&PortSpec::Number(7))).0[0], "10.1.0.1:7");
    slice["endpoints"] = Value::Null;
    assert_eq!(found(&seen(&[slice]), None), (Vec::new(), None), "nobody is there, whatever the port");
}

#[test]
fn a_pod_with_addresses_of_both_families_is_one_endpoint() {
    let mut six = shop();
    six["metadata"]["name"] = "orders-six".into();
    six["addressType"] = "IPv6".into();
    six["endpoints"] = serde_json::json!([{ "addresses": ["fd00::1"], "conditions": { "ready": true } }]);
    let port = name("http");
    assert_eq!(found(&seen(&[six.clone()]), Some(&port)).0, ["[fd00::1]:8080"]);
    assert_eq!(found(&seen(&[six, shop()]), Some(&port)).0, ["10.1.0.1:8080", "10.1.0.4:8080"]);
}

#[test]
fn a_watch_adds_changes_and_takes_away_and_its_version_goes_along() {
    let mut seen = seen(&[shop()]);
    let line = |kind: &str, object: Value| serde_json::json!({ "type": kind, "object": object }).to_string();
    let mut changed = shop();
    changed["metadata"]["resourceVersion"] = "101".into();
    changed["endpoints"] = serde_json::json!([{ "addresses": ["10.1.0.9"], "conditions": { "ready": true } }]);
    assert_eq!(seen.take(line("MODIFIED", changed.clone()).as_bytes()), Ok(Told::News));
    assert_eq!((found(&seen, Some(&name("http"))).0, seen.version.as_str()), (vec!["10.1.0.9:8080".to_owned()], "101"));
    let mark = serde_json::json!({ "kind": "EndpointSlice", "metadata": { "resourceVersion": "140" } });
    assert_eq!(seen.take(line("BOOKMARK", mark).as_bytes()), Ok(Told::Nothing));
    assert_eq!(seen.version, "140");
    assert_eq!(seen.take(line("DELETED", changed).as_bytes()), Ok(Told::News));
    assert!(found(&seen, None).0.is_empty());
    let gone = serde_json::json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version" });
    assert_eq!(seen.take(line("ERROR", gone).as_bytes()), Ok(Told::Gone));
    let broken = serde_json::json!({ "kind": "Status", "code": 500, "message": "etcd is away" });
    assert!(seen.take(line("ERROR", broken).as_bytes()).unwrap_err().contains("etcd is away"));
    assert!(seen.take(b"<html>").is_err());
}

#[test]
fn a_port_is_written_as_a_name_or_a_number() {
    let spec: KubernetesServiceSpec =
        serde_json::from_str(r#"{"service": "orders", "namespace": "shop", "port": 8080}"#).unwrap();
    assert_eq!((spec.port.clone(), spec.words().as_str()), (Some(PortSpec::Number(8080)), "shop/orders:8080"));
    let by = |port: &str| serde_json::from_str::<PortSpec>(port);
    assert_eq!((by(r#""http""#).unwrap(), by(r#""8080""#).unwrap()), (name("http"), PortSpec::Number(8080)));
    assert!(by("0").is_err() && by("70000").is_err() && by("-1").is_err());
}
