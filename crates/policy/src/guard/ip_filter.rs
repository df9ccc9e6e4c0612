//! Lets clients pass, or turns them away, by their address.
//!
//! ```yaml
//! ip_filter: { allow: [10.0.0.0/8, 2001:db8::/32], deny: 10.9.0.0/16 }
//! ```
//!
//! With `allow`, only those networks pass; with `deny` alone, all others do. An address in both is denied. The address
//! is the one client address of the exchange: that of the connection, or what the proxies in `trusted_proxies` say;
//! a header of an untrusted client changes nothing. An IPv4 address mapped into IPv6 counts as IPv4. Looking up takes
//! the logarithm of the number of networks, so lists may be long. The code of the refusal is `ip_filter.denied`.
//!
//! A filter that would let everybody or nobody through is an error when the document is read.

use pylon_core::Request;
use pylon_core::exchange::Exchange;
use pylon_core::networks::{Network, NetworkSet};
use pylon_core::rejection::IP_DENIED;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step};
use crate::written;

/// Which client addresses pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpFilterSpec {
    /// The networks that pass, and no others. Default: all pass that `deny` does not name.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<Network>", example = vec!["10.0.0.0/8", "2001:db8::/32"])]
    pub allow: Option<OneOrMany<Network>>,
    /// The networks that never pass, also those in `allow`. Default: none.
    #[serde(default)]
    #[schemars(example = vec!["192.0.2.0/24"])]
    pub deny: OneOrMany<Network>,
}

/// The filter at work.
#[derive(Debug)]
pub struct IpFilter {
    allow: Option<NetworkSet>,
    deny: NetworkSet,
}

impl Policy for IpFilter {
    type Spec = IpFilterSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let allow = spec.allow.as_ref().map(|networks| NetworkSet::new(networks.iter().copied()));
        let deny = NetworkSet::new(spec.deny.iter().copied());
        match &allow {
            Some(allow) if allow.is_empty() => Err(vec![
                SpecError::new(FieldPath::root().key("allow"), "`allow` is empty: nobody would pass")
                    .help("name the networks that pass, or leave `allow` out and name those that do not in `deny`"),
            ]),
            None if deny.is_empty() => Err(vec![
                SpecError::new(FieldPath::root(), "the filter names no network: everybody would pass")
                    .help("write `allow: [10.0.0.0/8]` or `deny: [192.0.2.0/24]`"),
            ]),
            _ => Ok(Self { allow, deny }),
        }
    }

    fn on_request<'a>(&'a self, _: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(cx.client));
        Step::Done(if allowed && !self.deny.contains(cx.client) { Ok(()) } else { Err((&IP_DENIED).into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Seen, compile, now, stopped};

    fn passes(policy: &IpFilter, client: &str) -> bool {
        let (mut req, mut cx) = Seen::get("/").client(client).start();
        let outcome = now(policy.on_request(&mut req, &mut cx));
        let passes = outcome.is_ok();
        assert!(passes || stopped(outcome) == "ip_filter.denied");
        passes
    }

    #[test]
    fn deny_wins_over_allow() {
        let policy = compile(r#"{ "allow": ["10.0.0.0/8"], "deny": "10.9.0.0/16" }"#).unwrap();
        assert!(passes(&policy, "10.1.2.3") && passes(&policy, "::ffff:10.1.2.3"));
        assert!(!passes(&policy, "10.9.0.1") && !passes(&policy, "192.0.2.1") && !passes(&policy, "2001:db8::1"));
    }

    #[test]
    fn with_deny_alone_all_others_pass() {
        let policy = compile(r#"{ "deny": ["192.0.2.0/24", "2001:db8::/32"] }"#).unwrap();
        assert!(passes(&policy, "198.51.100.1") && passes(&policy, "2001:db9::1"));
        assert!(
            !passes(&policy, "192.0.2.200")
                && !passes(&policy, "::ffff:192.0.2.200")
                && !passes(&policy, "2001:db8::1")
        );
    }

    #[test]
    fn only_the_one_client_address_counts_and_no_header() {
        let policy = compile::<IpFilter>(r#"{ "allow": "10.0.0.0/8" }"#).unwrap();
        for name in ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip"] {
            let (mut req, mut cx) = Seen::get("/").header(name, "10.0.0.1").client("192.0.2.1").start();
            assert!(now(policy.on_request(&mut req, &mut cx)).is_err(), "{name}");
        }
    }

    /// FAILURES 1: a filter whose words are half understood must never become one that lets through.
    #[test]
    fn a_filter_that_is_misspelt_or_empty_is_an_error_and_never_lets_through() {
        let mutations = |word: &str| -> Vec<String> {
            let mut all = vec![word.to_uppercase(), format!("{word}s"), format!("_{word}"), String::new()];
            for (i, _) in word.char_indices() {
                all.push(format!("{}{}", &word[..i], &word[i + 1..]));
                all.push(format!("{}x{}", &word[..i], &word[i..]));
                all.push(format!("{}x{}", &word[..i], &word[i + 1..]));
            }
            all
        };
        for key in mutations("allow").into_iter().chain(mutations("deny")) {
            for other in [r#""allow": ["10.0.0.0/8"], "#, r#""deny": ["10.0.0.0/8"], "#, ""] {
                let spec = format!(r#"{{ {other}"{key}": ["192.0.2.0/24"] }}"#);
                assert!(compile::<IpFilter>(&spec).is_err(), "{spec}");
            }
        }
        for value in [
            r#""10.0.0.1/8""#,
            r#""10.0.0.0/33""#,
            r#""localhost""#,
            r#""""#,
            "null",
            "true",
            "7",
            r#"["10.0.0.0/8", 7]"#,
            "{}",
        ] {
            let denied = format!(r#"{{ "deny": {value} }}"#);
            assert!(compile::<IpFilter>(&denied).is_err(), "{denied}");
            let allowed = format!(r#"{{ "allow": {value}, "deny": "192.0.2.1" }}"#);
            assert!(compile::<IpFilter>(&allowed).is_err(), "{allowed}");
        }
        for spec in [
            "{}",
            r#"{ "allow": [] }"#,
            r#"{ "deny": [] }"#,
            r#"{ "allow": [], "deny": ["192.0.2.1"] }"#,
            r#"{ "allow": null }"#,
            "[]",
            "true",
            "null",
        ] {
            assert!(compile::<IpFilter>(spec).is_err(), "{spec}");
        }
    }
}
