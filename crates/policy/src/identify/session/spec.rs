//! What a person writes of logins: the key `session`.

use std::collections::BTreeMap;

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::units::Span;
use pylon_net::tls::spec::UpstreamTlsSpec;
use pylon_upstream::outbound::spec::ClientAuthSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identify::jwt::spec::AlgorithmSpec;
use crate::written;

/// A login of browsers at an issuer, and the sessions that come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Who knows the users: the issuer, exactly as it stands in its tokens. Its addresses and keys are found at
    /// `/.well-known/openid-configuration` below it. Required.
    #[schemars(example = &"https://id.example.com")]
    pub issuer: String,
    /// Who the gateway is there. Required.
    #[schemars(example = &"shop")]
    pub client_id: String,
    /// How it proves that: `env:NAME` or `file:PATH`. Default: none; the client is public, and PKCE alone protects its logins.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"env:SHOP_SECRET")]
    pub client_secret: Option<SecretSpec>,
    /// How the secret is sent (RFC 6749 §2.3.1): `basic` in `Authorization`, `post` in the body. Default: `basic`.
    #[serde(default)]
    #[schemars(with = "String", example = &"post")]
    pub auth: ClientAuthSpec,
    /// The secrets that cookies are sealed with, of 32 bytes or more: the first seals, all of them open. Required.
    #[schemars(example = vec!["env:SESSION_KEY", "env:SESSION_KEY_BEFORE"])]
    pub keys: OneOrMany<SecretSpec>,
    /// Where sessions stand: `redis`, which `stores` names, where browsers keep an id alone. Default: in cookies, sealed.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StoreSpec", example = &"redis")]
    pub store: Option<StoreSpec>,
    /// Where it is noted which sessions of cookies were ended, for all gateways: `redis`, which `stores` names. Default: in the memory of
    /// the gateway that learns of it.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StoreSpec", example = &"redis")]
    pub logouts: Option<StoreSpec>,
    /// What is asked for besides `openid`, one scope or a list. `offline_access` gives many issuers cause to hand out what tokens are
    /// renewed by. Default: nothing.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["profile", "email", "offline_access"])]
    pub scopes: OneOrMany<String>,
    /// What else is said to the issuer when a login begins. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("prompt", "consent")]))]
    pub params: BTreeMap<String, String>,
    /// Below which path the gateway answers: `/callback`, `/login`, `/logout` and `/backchannel` there are its own. Default: `/.session`.
    #[serde(default = "path")]
    #[schemars(example = &"/auth")]
    pub path: String,
    /// Where browsers reach the gateway. Default: what the request says, which is right unless a proxy in front changes `Host`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"https://shop.example.com")]
    pub origin: Option<String>,
    /// The name of the cookies; `__Host-` comes before it under HTTPS. Default: `pylon_session`.
    #[serde(default = "cookie")]
    #[schemars(example = &"shop_session")]
    pub cookie: String,
    /// For how long a session lasts from its login, from a minute to 30 days. Default: `8h`.
    #[serde(default = "eight_hours")]
    #[schemars(example = &"12h")]
    pub lifetime: Span,
    /// For how long it lasts from one request to the next, from 10 seconds to `lifetime`. Default: `1h`.
    #[serde(default = "one_hour")]
    #[schemars(example = &"15m")]
    pub idle: Span,
    /// Where a browser goes after a logout: a path here. The issuer must know it as an address to go to after a logout. Default: the
    /// issuer or the gateway says that it is done.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"/goodbye")]
    pub after_logout: Option<String>,
    /// Whether the issuer is asked for what it knows of the user (OpenID Connect Core §5.3) when a login or a renewal succeeds.
    /// Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub userinfo: bool,
    /// The algorithms by which tokens may be signed, one or a list. Default: what each key of the issuer says.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["RS256", "ES256"])]
    pub algorithms: OneOrMany<AlgorithmSpec>,
    /// How far clocks may differ, at most five minutes. Default: `30s`.
    #[serde(default = "thirty_seconds")]
    #[schemars(example = &"10s")]
    pub leeway: Span,
    /// The claim that names the caller. Default: `sub`.
    #[serde(default = "sub")]
    #[schemars(example = &"preferred_username")]
    pub subject_claim: String,
    /// The claim with the groups of the caller: a name or a path; a text or a list. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"realm_access.roles")]
    pub groups_claim: Option<String>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-user", "subject"), ("x-email", "claims.email")]))]
    pub headers: BTreeMap<String, String>,
    /// Which tokens services are sent, by header: in `authorization` behind `Bearer`, alone in any other. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("authorization", "access_token")]))]
    pub tokens: BTreeMap<String, TokenSpec>,
    /// How the issuer is spoken to under TLS: roots of your own, as in `upstreams.NAME.tls`. Default: the roots of the system.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamTlsSpec", example = BTreeMap::from([("ca", "certs/internal.pem")]))]
    pub tls: Option<UpstreamTlsSpec>,
}

/// A store that gateways share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreSpec {
    /// The one under `stores.redis`.
    Redis,
}

/// A token that services may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSpec {
    /// The access token.
    AccessToken,
    /// The ID token.
    IdToken,
}

fn path() -> String {
    "/.session".to_owned()
}

fn cookie() -> String {
    "pylon_session".to_owned()
}

fn eight_hours() -> Span {
    Span::from_secs(8 * 3600)
}

fn one_hour() -> Span {
    Span::from_secs(3600)
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn sub() -> String {
    "sub".to_owned()
}
