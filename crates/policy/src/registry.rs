// xtask: table
//! Lists every policy once, top to bottom in the order that requests meet them; all else about policies comes out of it.
//!
//! The order is a security property and stands here and nowhere else. A line is `key: Type, "title", judges;` in the block
//! of its phase: the key of the document is also the name of the module, and a policy that `judges` can run in shadow
//! while one that `acts` (answers or transforms) cannot.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::table::policies;

policies! {
    Guard in testing {
        #[cfg(test)]
        probe: Probe, "A probe for tests", judges;
    }
    Guard in guard {
        https_redirect: HttpsRedirect, "Redirect to HTTPS", acts;
        maintenance: Maintenance, "Maintenance", judges;
        ip_filter: IpFilter, "Allow and deny by address", judges;
        request_limits: RequestLimits, "Limits of requests", judges;
    }
    Admit in admit {
        cors: Cors, "Cross-origin requests (CORS)", acts;
        csrf: Csrf, "Requests forged by other sites (CSRF)", judges;
    }
    Identify in identify {
        client_cert: ClientCert, "Client certificates", judges;
        api_key: ApiKey, "API keys", judges;
        basic: Basic, "Names and passwords", judges;
        signature: Signature, "Signed requests", judges;
        jwt: Jwt, "Tokens (JWT)", judges;
        introspect: Introspect, "Tokens that are asked about", judges;
        session: Session, "Logins by OpenID Connect", acts;
    }
    Authorize in authorize {
        anonymous: Anonymous, "Requests without a caller", acts;
        require: Require, "Requirements of callers", judges;
        #[cfg(feature = "cel")]
        expression: Expression, "An expression (CEL) that must be true", judges;
        external: External, "A service that says who may pass", judges;
    }
    Limit in limit {
        priority: Priority, "Classes of priority", acts;
    }
    Shape in shape {
        mint: Mint, "A signed identity for services", acts;
        headers: Headers, "Set, add and remove headers", acts;
        fault: Fault, "Injected faults", acts;
    }
}

/// Policies that this gateway was built without, each with the feature that brings it.
pub const LEFT_OUT: &[(&str, &str)] = &[
    #[cfg(not(feature = "cel"))]
    ("expression", "cel"),
];

/// One policy of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its key in the document.
    pub key: &'static str,
    /// When requests meet it.
    pub phase: Phase,
    /// What it is for, in a few words.
    pub title: &'static str,
    /// Whether it gives a verdict and so can run in shadow.
    pub shadow: bool,
    /// Its page of the manual, in Markdown.
    pub doc: &'static str,
}

/// The steps in which requests meet policies, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Judges by connection and head alone.
    Guard,
    /// Answers or turns away before anybody asks who sent the request.
    Admit,
    /// Finds out who is asking.
    Identify,
    /// Says what the caller may do.
    Authorize,
    /// Bounds what a request may have.
    Limit,
    /// Changes requests and responses that pass.
    Shape,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "guard",
            Self::Admit => "admit",
            Self::Identify => "identify",
            Self::Authorize => "authorize",
            Self::Limit => "limit",
            Self::Shape => "shape",
        })
    }
}

/// Reads whatever type the registry asks for: the source of a spec whose type only the registry knows.
pub trait SpecReader {
    /// Reads a `T`. A reader that cannot keeps the reasons to itself, with their places, and answers nothing.
    fn read<T: DeserializeOwned>(self) -> Option<T>;
}

/// The entry of the catalogue with this key.
pub fn entry(key: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Json;
    use schemars::SchemaGenerator;
    use serde_json::Value;

    fn shipped() -> impl Iterator<Item = &'static Entry> {
        CATALOGUE.iter().filter(|entry| entry.key != "probe")
    }

    /// The rows of the table in CONTRACTS §2 that are built, in its order.
    #[test]
    fn requests_meet_policies_in_the_order_of_the_contract() {
        let order: Vec<_> = shipped().map(|entry| (entry.phase, entry.key)).collect();
        let contract = [
            (Phase::Guard, "https_redirect"),
            (Phase::Guard, "maintenance"),
            (Phase::Guard, "ip_filter"),
            (Phase::Guard, "request_limits"),
            (Phase::Admit, "cors"),
            (Phase::Admit, "csrf"),
            (Phase::Identify, "client_cert"),
            (Phase::Identify, "api_key"),
            (Phase::Identify, "basic"),
            (Phase::Identify, "signature"),
            (Phase::Identify, "jwt"),
            (Phase::Identify, "introspect"),
            (Phase::Identify, "session"),
            (Phase::Authorize, "anonymous"),
            (Phase::Authorize, "require"),
            #[cfg(feature = "cel")]
            (Phase::Authorize, "expression"),
            (Phase::Authorize, "external"),
            (Phase::Limit, "priority"),
            (Phase::Shape, "mint"),
            (Phase::Shape, "headers"),
            (Phase::Shape, "fault"),
        ];
        assert_eq!(order, contract);
        assert!(CATALOGUE.is_sorted_by_key(|entry| entry.phase));
    }

    #[test]
    fn every_policy_has_a_page_that_shows_how_to_write_it() {
        for Entry { key, doc, .. } in shipped() {
            assert!(doc.contains(&format!("```yaml\n{key}:")), "{key}");
            assert!(doc.ends_with('\n') && !doc.contains("//!") && !doc.contains("use "), "{key}");
            assert!(entry(key).is_some());
        }
        assert_eq!(entry("probes"), None);
    }

    /// FAILURES 49: no field without description, default, unit or example.
    #[test]
    fn every_field_tells_what_it_is_with_its_default_and_an_example() {
        for Entry { key, .. } in shipped() {
            let mut generator = SchemaGenerator::default();
            schema(key, &mut generator).unwrap();
            // What all who speak TLS share is held to the same by the tests of `config`.
            let own = |name: &&String| !matches!(name.as_str(), "UpstreamTlsSpec" | "CertificateSpec");
            for (name, definition) in generator.definitions().iter().filter(|(name, _)| own(name)) {
                let required = definition["required"].as_array().cloned().unwrap_or_default();
                let fields = definition["properties"].as_object().cloned().unwrap_or_default();
                for (field, told) in &fields {
                    let text = told["description"].as_str().unwrap_or_default();
                    let said = if required.contains(&Value::from(field.as_str())) { "Required." } else { "Default: " };
                    assert!(text.contains(said), "{key}: {name}.{field} says no default: {told}");
                    assert!(told["examples"].is_array(), "{key}: {name}.{field} has no example");
                }
            }
        }
    }

    #[test]
    fn a_spec_is_read_by_key_and_written_so_that_it_reads_back_the_same() {
        for (key, text) in [
            ("https_redirect", "true"),
            ("maintenance", r#"{ "retry_after": "10m", "allow": "10.0.0.0/8" }"#),
            ("ip_filter", r#"{ "deny": ["10.0.0.0/8"] }"#),
            ("request_limits", r#"{ "body": "1MiB", "content_types": ["text/*"] }"#),
            ("cors", "\"*\""),
            ("csrf", "true"),
            (
                "csrf",
                r#"{ "origins": ["https://a.example"], "token": { "cookie": "__Host-csrf", "header": "x-csrf" } }"#,
            ),
            (
                "introspect",
                r#"{ "url": "https://id.test/x", "client_id": "gate", "client_secret": "env:SECRET", "audience": "api", "ttl": "10s" }"#,
            ),
            (
                "signature",
                r#"{ "components": ["@method", "@path"], "max_age": "1m", "tag": "shop", "headers": { "x-a": "consumer" } }"#,
            ),
            (
                "require",
                r#"{ "scopes": ["a", "b"], "any_group": "c", "claims": { "level": [1, "2", true] }, "by": "jwt" }"#,
            ),
            (
                "external",
                r#"{ "http": "auth", "copy": "x-user", "cache": { "ttl": "10s", "by": ["authorization", "cookie"] } }"#,
            ),
            #[cfg(feature = "cel")]
            ("expression", r#""request.method == 'GET'""#),
            ("mint", r#"{ "issuer": "https://gate.test", "audience": "orders", "claims": { "plan": "plan" } }"#),
            ("priority", r#"{ "header": "x-priority", "ceiling": "high", "from": "anyone" }"#),
            ("headers", r#"{ "request": { "set": { "x-a": "1" }, "add": { "x-b": ["1", "2"] } } }"#),
        ] {
            let read = |json: &str| read_spec(key, Json(json)).unwrap().unwrap();
            let spec = read(text);
            assert_eq!(spec.key(), key);
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()), spec, "{key}");
        }
        assert!(read_spec("corse", Json("true")).is_none());
    }
}
