//! Knows clients by the certificate that they showed in the handshake (RFC 8446 §4.4.2).
//!
//! ```yaml
//! client_cert: true
//! ```
//! ```yaml
//! client_cert:
//!   trust_domain: example.org       # only SPIFFE ids of this domain
//!   headers: { x-service: subject }
//! ```
//!
//! The listener asks for certificates and verifies them (`tls: { client_cert: { ca: …, crl: … } }`); with `required: false` there clients
//! without one get as far as the routes. This policy says who it is that came with one. The subject is the first that the certificate has
//! of a URI, a DNS name, a mail address and the common name of its subject. With `trust_domain` it is its SPIFFE id, of which a certificate
//! has exactly one (SPIFFE X.509-SVID §2), and a certificate without one in that domain proves nothing.
//!
//! A consumer may name certificates as its own: `consumers: { billing: { certificates: [spiffe://example.org/billing] } }`. As claims there are
//! `common_name`, `uris`, `names`, `emails`, `issuer`, `serial` and `fingerprint`, for `require` and `headers`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::certificate::ClientCertificate;
use pylon_core::exchange::Exchange;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::clock::unix_now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::consumers::Consumers;
use crate::identity::{Identity, Proof, Telling};
use crate::policy::{Compiling, Policy, Step};
use crate::proofs::{self, Proofs};
use crate::written;

/// Who clients are by their certificates. Short: `true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertSpec {
    /// The trust domain that SPIFFE ids must be of. Default: any verified certificate counts.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"example.org")]
    pub trust_domain: Option<String>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-service", "subject")]))]
    pub headers: BTreeMap<String, String>,
}

impl FromScalar for ClientCertSpec {
    const EXPECTING: &'static str = "`true`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        if text == "true" {
            return Ok(Self { trust_domain: None, headers: BTreeMap::new() });
        }
        Err(format!("`{text}` is not {}; `off` takes the policy away", Self::EXPECTING))
    }
}

/// The policy at work.
#[derive(Debug)]
pub struct ClientCert {
    identity: Identity,
    /// With what SPIFFE ids begin.
    domain: Option<Box<str>>,
    consumers: Arc<Consumers>,
}

impl Policy for ClientCert {
    type Spec = Short<ClientCertSpec>;
    type Memo = ();

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        if !cx.around.asks_for_certificates {
            let error = SpecError::new(FieldPath::root(), "no listener asks for certificates, so nobody could call");
            errors.push(error.help("add `client_cert: { ca: clients.pem }` to the `tls` of a listener"));
        }
        if let Some(domain) = &spec.trust_domain
            && (domain.is_empty()
                || !domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)))
        {
            let error = SpecError::new(at("trust_domain"), format!("`{domain}` is not a trust domain"));
            errors.push(error.help("write it in lower case and alone, such as `example.org`"));
        }
        let telling = Telling::compile(&spec.headers);
        let telling =
            telling.map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at("headers")))));
        let (Ok(telling), true) = (telling, errors.is_empty()) else { return Err(errors) };
        // Nothing stands in the request, so there is nothing to take out, and no scheme to ask by.
        let challenge = HeaderValue::from_static("Certificate");
        let identity =
            Identity { places: Box::default(), telling, forward: true, challenge, proofs: Proofs::default() };
        let domain = spec.trust_domain.as_ref().map(|domain| format!("spiffe://{domain}/").into());
        Ok(Self { identity, domain, consumers: Arc::clone(&cx.around.consumers) })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        self.identity.telling.clean(req);
        let connection = Arc::clone(&cx.connection);
        let Some(certificate) = connection.certificate.get() else { return Step::Done(Ok(())) };
        let Some(shown) = self.identity.recognise(&certificate.fingerprint, req, cx) else { return Step::Done(Ok(())) };
        let proof = self.prove(certificate, cx.started, unix_now().as_secs());
        Step::Done(self.identity.settle(&shown, proof, req, cx))
    }
}

impl ClientCert {
    fn prove(&self, certificate: &ClientCertificate, now: Instant, seconds: u64) -> Proof {
        // A connection may outlive the certificate by which it was let in.
        let left = match certificate.until.saturating_sub(seconds) {
            0 => return Proof::Invalid("the certificate is over".into()),
            left => Duration::from_secs(left),
        };
        let subject = match &self.domain {
            None => match named(certificate) {
                Some(subject) => subject,
                None => return Proof::Invalid("the certificate names nobody".into()),
            },
            Some(domain) => match &*certificate.uris {
                [id] if id.starts_with(&**domain) && id.len() > domain.len() => &**id,
                [id] => return Proof::Invalid(format!("`{id}` is not of the trust domain").into()),
                _ => return Proof::Invalid("the certificate has not one SPIFFE id".into()),
            },
        };
        let names = certificate.uris.iter().chain(&certificate.names).chain(&certificate.emails);
        let consumer = self.consumers.certificate_by(&certificate.fingerprint());
        let consumer = consumer.or_else(|| names.into_iter().find_map(|name| self.consumers.certificate_by(name)));
        let mut caller = consumer.map_or_else(
            || Caller { by: "client_cert", ..Caller::default() },
            |consumer| Caller::consumer("client_cert", consumer),
        );
        caller.subject = subject.into();
        caller.until = Some(certificate.until);
        caller.claims = claims(certificate);
        Proof::Caller(caller, now + left.min(proofs::LONGEST))
    }
}

/// The first name of the client that the certificate has.
fn named(certificate: &ClientCertificate) -> Option<&str> {
    let names = certificate.uris.iter().chain(&certificate.names).chain(&certificate.emails);
    names.chain(&certificate.common_name).map(|name| &**name).find(|name| !name.is_empty())
}

fn claims(certificate: &ClientCertificate) -> Map<String, Value> {
    let list = |names: &[Box<str>]| Value::from(names.iter().map(|name| Value::from(&**name)).collect::<Vec<_>>());
    let mut claims = Map::new();
    if let Some(name) = &certificate.common_name {
        claims.insert("common_name".into(), (**name).into());
    }
    for (key, names) in [("uris", &certificate.uris), ("names", &certificate.names), ("emails", &certificate.emails)] {
        claims.insert(key.into(), list(names));
    }
    claims.insert("issuer".into(), (*certificate.issuer).into());
    claims.insert("serial".into(), (*certificate.serial).into());
    claims.insert("fingerprint".into(), certificate.fingerprint().into());
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Stop;
    use crate::testing::{Seen, compile, now};

    fn certificate(uris: &[&str], names: &[&str], until: u64) -> ClientCertificate {
        let boxed = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        let common_name = Some("somebody".into());
        ClientCertificate { uris: boxed(uris), names: boxed(names), common_name, until, ..ClientCertificate::default() }
    }

    fn meet(json: &str, certificate: Option<ClientCertificate>) -> Result<Option<Arc<Caller>>, String> {
        let policy: ClientCert = compile(json).unwrap();
        let (mut req, mut cx) = Seen::get("/").header("x-service", "forged").start();
        if let Some(certificate) = certificate {
            cx.connection.certificate.set(certificate).unwrap();
        }
        let outcome = now(policy.on_request(&mut req, &mut cx));
        assert_ne!(req.headers().get("x-service"), Some(&HeaderValue::from_static("forged")));
        match outcome {
            Ok(()) => Ok(cx.caller.clone()),
            Err(Stop::Reject(no)) => Err(no.note.unwrap_or_default().into_owned()),
            Err(Stop::Reply(reply)) => panic!("{reply:?}"),
        }
    }

    const TELLS: &str = r#"{ "headers": { "x-service": "subject" } }"#;
    const OF_DOMAIN: &str = r#"{ "trust_domain": "example.org", "headers": { "x-service": "subject" } }"#;

    #[test]
    fn a_certificate_says_who_came_with_it_and_none_says_nothing() {
        let subject = |certificate| meet(TELLS, Some(certificate)).unwrap().unwrap().subject.clone();
        assert_eq!(&*subject(certificate(&["urn:x:1"], &["a.test"], u64::MAX)), "urn:x:1");
        assert_eq!(&*subject(certificate(&[], &["a.test"], u64::MAX)), "a.test");
        assert_eq!(&*subject(certificate(&[], &[], u64::MAX)), "somebody");
        assert_eq!(meet(TELLS, None), Ok(None));
        let consumer = meet(TELLS, Some(certificate(&[], &["app.test"], u64::MAX))).unwrap().unwrap();
        assert_eq!((consumer.consumer.as_ref().unwrap().name.as_str(), &*consumer.subject), ("app", "app.test"));
        assert!(consumer.is_in("apps"));
    }

    #[test]
    fn a_trust_domain_takes_one_id_of_its_own_and_no_other() {
        let wrong = |uris: &[&str]| meet(OF_DOMAIN, Some(certificate(uris, &["a.test"], u64::MAX))).unwrap_err();
        for uris in [
            &[][..],
            &["spiffe://example.org/"],
            &["spiffe://example.org"],
            &["spiffe://example.org.evil.test/a"],
            &["spiffe://Example.org/a"],
            &["https://example.org/a"],
            &["spiffe://example.org/a", "spiffe://example.org/b"],
        ] {
            assert!(!wrong(uris).is_empty(), "{uris:?}");
        }
        let right = meet(OF_DOMAIN, Some(certificate(&["spiffe://example.org/a"], &[], u64::MAX))).unwrap().unwrap();
        assert_eq!(&*right.subject, "spiffe://example.org/a");
    }

    #[test]
    fn a_certificate_that_is_over_proves_nothing_on_a_connection_that_goes_on() {
        assert_eq!(meet(TELLS, Some(certificate(&[], &["a.test"], 1))).unwrap_err(), "the certificate is over");
    }

    #[test]
    fn what_could_not_be_meant_is_refused_at_load() {
        for json in ["false", r#"{ "trust_domain": "spiffe://x" }"#, r#"{ "trust_domain": "" }"#, r#"{ "trust": "x" }"#]
        {
            assert!(compile::<ClientCert>(json).is_err(), "{json}");
        }
    }
}
