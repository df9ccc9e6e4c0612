//! What `jwt` and `introspect` have in common: where tokens stand, which of their claims count, and what services are told of their callers.

use std::collections::BTreeMap;
use std::fmt;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use pylon_core::kept;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::identify::jwt::claims::Rules;
use crate::identity::{Identity, Place, Telling, place_named};
use crate::proofs::Proofs;
use crate::written;

/// Makes what is written of tokens: the keys that stand there, and behind them those that all of this kind have. A map within the spec would
/// be another form for users, and what serde flattens has worse messages.
macro_rules! token_spec {
    ($(#[$about:meta])* pub struct $Spec:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $Spec {
            $($own)*
            /// Claims that must be there: names, or names with the value that they must have (one or a list of which one is enough). Names may be
            /// paths such as `realm.tenant`. Default: none but those that are looked at in any case.
            #[serde(default, skip_serializing_if = "crate::tokens::RequiredSpec::is_empty")]
            #[schemars(example = std::collections::BTreeMap::from([("tenant", "shop")]))]
            pub required: crate::tokens::RequiredSpec,
            /// The claim that names the caller. Default: `sub`, and where a server that is asked tells none, `username` or `client_id`.
            #[serde(default, deserialize_with = "crate::written::value", skip_serializing_if = "Option::is_none")]
            #[schemars(with = "String", example = &"preferred_username")]
            pub subject_claim: Option<String>,
            /// The claim with the scopes: a text with blanks between them, or a list. Default: `scope`, and `scp` where that is not there.
            #[serde(default, deserialize_with = "crate::written::value", skip_serializing_if = "Option::is_none")]
            #[schemars(with = "String", example = &"permissions")]
            pub scopes_claim: Option<String>,
            /// The claim with the groups of the caller: a name or a path; a text or a list. Default: none.
            #[serde(default, deserialize_with = "crate::written::value", skip_serializing_if = "Option::is_none")]
            #[schemars(with = "String", example = &"realm_access.roles")]
            pub groups_claim: Option<String>,
            /// Where tokens stand; of several places the first that has one counts. Default: `Authorization: Bearer …`.
            #[serde(default, deserialize_with = "crate::written::value", skip_serializing_if = "Option::is_none")]
            #[schemars(
                with = "crate::tokens::FromSpec",
                example = crate::tokens::FromSpec { header: None, cookie: Some("token".into()), query: None }
            )]
            pub from: Option<crate::tokens::FromSpec>,
            /// What services are told of the caller: facts by header. Default: nothing.
            #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
            #[schemars(example = std::collections::BTreeMap::from([("x-user", "subject"), ("x-email", "claims.email")]))]
            pub headers: std::collections::BTreeMap<String, String>,
            /// Whether services see the token. Default: `false`.
            #[serde(default)]
            #[schemars(example = true)]
            pub forward: bool,
            /// How whoever is asked is spoken to under TLS: roots of your own, as in `upstreams.NAME.tls`. Default: the roots of the system.
            #[serde(default, deserialize_with = "crate::written::value", skip_serializing_if = "Option::is_none")]
            #[schemars(
                with = "pylon_net::tls::spec::UpstreamTlsSpec",
                example = std::collections::BTreeMap::from([("ca", "certs/internal.pem")])
            )]
            pub tls: Option<pylon_net::tls::spec::UpstreamTlsSpec>,
        }

        impl $Spec {
            /// What all of this kind have, but for `tls`.
            pub(crate) fn common(&self) -> crate::tokens::Common<'_> {
                crate::tokens::Common {
                    required: &self.required,
                    claims: [&self.subject_claim, &self.scopes_claim, &self.groups_claim].map(Option::as_deref),
                    from: self.from.as_ref(),
                    headers: &self.headers,
                    forward: self.forward,
                }
            }
        }
    };
}

pub(crate) use token_spec;

/// The keys that all specs of tokens have.
#[derive(Debug)]
pub(crate) struct Common<'s> {
    pub(crate) required: &'s RequiredSpec,
    /// Those with the subject, the scopes and the groups.
    pub(crate) claims: [Option<&'s str>; 3],
    pub(crate) from: Option<&'s FromSpec>,
    pub(crate) headers: &'s BTreeMap<String, String>,
    pub(crate) forward: bool,
}

/// Where tokens stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromSpec {
    /// The header that holds the token: behind `Bearer` in `authorization`, alone in any other. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"x-token")]
    pub header: Option<String>,
    /// The cookie that holds it. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"token")]
    pub cookie: Option<String>,
    /// The parameter of the query that holds it. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"access_token")]
    pub query: Option<String>,
}

/// Claims that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequiredSpec {
    /// With any value.
    Names(Vec<String>),
    /// With one of these values.
    Values(BTreeMap<String, OneOrMany<Value>>),
}

impl RequiredSpec {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }
}

impl Default for RequiredSpec {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Serialize for RequiredSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Values(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RequiredSpec {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Claims;

        impl<'de> Visitor<'de> for Claims {
            type Value = RequiredSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a claim, a list of names, or names with values")
            }

            fn visit_str<E>(self, name: &str) -> Result<RequiredSpec, E> {
                Ok(RequiredSpec::Names(vec![name.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RequiredSpec, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(RequiredSpec::Names(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<RequiredSpec, A::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    values.insert(name, OneOrMany(if let Value::Array(many) = value { many } else { vec![value] }));
                }
                Ok(RequiredSpec::Values(values))
            }
        }

        source.deserialize_any(Claims)
    }
}

impl JsonSchema for RequiredSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RequiredSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
                { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "array"] } },
            ]
        })
    }
}

impl Common<'_> {
    /// Which claims count; whose tokens they are, and for whom, says another.
    pub(crate) fn rules(&self, errors: &mut Vec<SpecError>) -> Rules {
        for (key, name) in ["subject_claim", "scopes_claim", "groups_claim"].into_iter().zip(self.claims) {
            if name.is_some_and(str::is_empty) {
                errors.push(SpecError::new(FieldPath::root().key(key), "this is empty"));
            }
        }
        let [subject, scopes, groups] = self.claims;
        Rules {
            issuer: Box::default(),
            audiences: None,
            leeway: 0,
            required: required(self.required, errors),
            subject: subject.unwrap_or("sub").into(),
            scopes: scopes.map(Into::into),
            groups: groups.map(Into::into),
            typ: None,
        }
    }

    /// Where tokens are looked for, and what becomes of them; none where that is wrong.
    pub(crate) fn identity(&self, proofs: Proofs, errors: &mut Vec<SpecError>) -> Option<Identity> {
        let before = errors.len();
        let places = match self.from {
            None => [Place::bearer()].into(),
            Some(from) => places(from, errors),
        };
        let telling = Telling::compile(self.headers).map_err(|found| {
            errors.extend(found.into_iter().map(|error| error.below(&FieldPath::root().key("headers"))));
        });
        // RFC 6750 §3.1.
        let challenge = HeaderValue::from_static("Bearer realm=\"pylon\", error=\"invalid_token\"");
        let telling = telling.ok().filter(|_| errors.len() == before)?;
        Some(Identity { places, telling, forward: self.forward, challenge, proofs })
    }
}

fn required(spec: &RequiredSpec, errors: &mut Vec<SpecError>) -> Box<[(Box<str>, Vec<serde_json::Value>)]> {
    let all: Vec<(Box<str>, Vec<_>)> = match spec {
        RequiredSpec::Names(names) => names.iter().map(|name| (name.as_str().into(), Vec::new())).collect(),
        RequiredSpec::Values(values) => {
            let at = |name: &str| FieldPath::root().key("required").key(name);
            let odd = |value: &serde_json::Value| value.is_null() || value.is_object() || value.is_array();
            for (name, values) in values.iter().filter(|(_, values)| values.is_empty() || values.iter().any(odd)) {
                let error = SpecError::new(at(name), format!("{} cannot be the value of a claim", shown(values)));
                errors.push(error.help("write a text, a number, `true` or `false`, or a list of them"));
            }
            values.iter().map(|(name, values)| (name.as_str().into(), values.0.clone())).collect()
        }
    };
    if all.iter().any(|(name, _)| name.is_empty()) {
        errors.push(SpecError::new(FieldPath::root().key("required"), "a claim has a name"));
    }
    all.into()
}

fn shown(values: &[serde_json::Value]) -> String {
    values.first().map_or_else(|| "an empty list".to_owned(), |value| format!("`{value}`"))
}

fn places(from: &FromSpec, errors: &mut Vec<SpecError>) -> Box<[Place]> {
    let at = |key: &str| FieldPath::root().key("from").key(key);
    let (mut places, before) = (Vec::new(), errors.len());
    match from.header.as_deref().map(HeaderName::try_from) {
        None => {}
        Some(Ok(AUTHORIZATION)) => places.push(Place::bearer()),
        Some(Ok(name)) => places.push(Place::Header(kept::name(&name), None)),
        Some(Err(_)) => errors.push(SpecError::new(at("header"), "this is not the name of a header")),
    }
    for (key, name, place) in [
        ("cookie", &from.cookie, Place::Cookie as fn(Box<str>) -> Place),
        ("query", &from.query, Place::Query as fn(Box<str>) -> Place),
    ] {
        places.extend(
            name.as_deref()
                .and_then(|name| place_named(name, place).map_err(|error| errors.push(error.below(&at(key)))).ok()),
        );
    }
    if places.is_empty() && errors.len() == before {
        let error = SpecError::new(FieldPath::root().key("from"), "nothing says where the token stands");
        errors.push(error.help("write one of `header`, `cookie` and `query`, or leave `from` out"));
    }
    places.into()
}
