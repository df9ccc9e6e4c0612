//! What callers may do, by the real program: requirements hold, mistakes in them never open a route. Failures 1, 7 and 8.

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;

/// `printf key-of-shop | sha256sum`.
const SHOP: &str = "sha256:625ec9a8bfc54cc62de07d58b187d9e967e1fbcaa61cf9acd03ce7995c261a8d";
/// `printf key-of-old | sha256sum`.
const OLD: &str = "sha256:8275452d274ed490a111b9feef1e542673122ca2f6ea53d5fc733b16dfe360df";

fn document(service: &Upstream, policies: &str) -> String {
    format!(
        "workers: 2\nconsumers:\n  shop-app: {{ groups: partners, keys: \"{SHOP}\" }}\n  old-app: {{ groups: archive, keys: \"{OLD}\" }}\n\
         upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}\n\
         routes:\n  - match: \"/{{*rest}}\"\n    forward: api\n    api_key: x-api-key\n{policies}",
        service.url()
    )
}

#[test]
fn a_requirement_holds_on_every_worker_and_the_client_is_not_told_why_it_does_not() {
    let service = Upstream::named("x");
    let gate =
        Binary::start(&document(&service, "    require: { any_group: partners, consumers: [shop-app, old-app] }\n"));
    for number in 0..6 {
        let path = format!("/{number}");
        assert_eq!(gate.ask("GET", &path, &[("x-api-key", "key-of-shop")], b"").status(), 200);
        let refused = gate.ask("GET", &format!("/no{number}"), &[("x-api-key", "key-of-old")], b"");
        assert_eq!((refused.status(), refused.json()["code"].as_str()), (403, Some("caller.forbidden")));
        assert!(!refused.text().contains("group") && refused.field("www-authenticate").is_none());
        assert_eq!(gate.get(&path).status(), 401);
    }
    assert_eq!(gate.logged("/no0")["detail"], "old-app is in none of the groups");
    assert_eq!(service.requests(), 6);
}

/// Failure 1: no mistake in a requirement opens the route that it guards.
#[test]
fn a_document_whose_requirement_is_wrong_is_refused_and_the_one_before_keeps_guarding() {
    let service = Upstream::named("x");
    let right = document(
        &service,
        "    require: { any_group: [partners], consumers: [shop-app], subjects: [shop-app], scopes: [a], any_scope: [b], claims: { key: k }, by: api_key }\n",
    );
    let gate = Binary::start(&right);
    for (from, to) in [
        ("require:", "requires:"),
        ("any_group:", "any_groups:"),
        ("any_group: [partners]", "any_group: []"),
        ("any_group: [partners]", "any_group: [partner]"),
        ("any_group: [partners]", "any_group:"),
        ("[shop-app], subjects", "[shop-ap], subjects"),
        ("subjects: [shop-app]", "subjects: []"),
        ("subjects: [shop-app]", "subject: [shop-app]"),
        ("scopes: [a]", "scopes: ['a b']"),
        ("scopes: [a]", "scopes: {}"),
        ("any_scope: [b]", "any_scope: [\"\"]"),
        ("claims: { key: k }", "claims: { key: }"),
        ("claims: { key: k }", "claims: {}"),
        ("by: api_key", "by: jwt"),
        ("by: api_key", "by: []"),
        ("    api_key: x-api-key\n", ""),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        gate.write(&wrong);
        assert_eq!(gate.reload().status(), 422, "{from} → {to}");
        assert_eq!(gate.ask("GET", "/x", &[("x-api-key", "key-of-shop")], b"").status(), 403, "{to}");
        assert_eq!(gate.get("/x").status(), 401, "{to}");
    }
    assert_eq!(service.requests(), 0);
}

#[test]
fn a_requirement_in_shadow_is_judged_and_the_key_is_still_demanded() {
    let service = Upstream::named("x");
    let gate = Binary::start(&document(&service, "    require: { any_group: partners }\n    shadow: require\n"));
    assert_eq!(gate.ask("GET", "/x", &[("x-api-key", "key-of-old")], b"").status(), 200);
    assert_eq!(gate.logged("/x")["shadow"][0]["code"], "caller.forbidden");
    assert_eq!(gate.get("/y").status(), 401);
}
