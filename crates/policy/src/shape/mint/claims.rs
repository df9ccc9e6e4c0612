//! What a token says (RFC 7519 §4.1): those who made it and whom it is for, when it ends, and who is asking.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pylon_core::caller::{Caller, Fact};
use pylon_core::spec::{FieldPath, SpecError};
use serde_json::{Map, Value};

use super::spec::MintSpec;

/// Claims that the gateway vouches for, whatever else is asked for.
const OWN: [&str; 10] = ["iss", "aud", "exp", "iat", "nbf", "jti", "sub", "scope", "groups", "cnf"];

/// What the tokens of one policy say.
#[derive(Debug)]
pub(super) struct Claims {
    /// `iss` and `aud`.
    always: Map<String, Value>,
    facts: Box<[(String, Fact)]>,
}

impl Claims {
    /// Reads the written form; errors begin at the root of the policy.
    pub(super) fn compile(spec: &MintSpec) -> Result<Self, Vec<SpecError>> {
        let (mut facts, mut errors) = (Vec::new(), Vec::new());
        for (claim, fact) in &spec.claims {
            let at = || FieldPath::root().key("claims").key(claim);
            if OWN.contains(&claim.as_str()) {
                let error = SpecError::new(at(), format!("`{claim}` is written by the gateway itself"));
                errors.push(error.help("choose another name for the claim"));
            }
            match Fact::parse(fact) {
                Some(fact) => facts.push((claim.clone(), fact)),
                None => {
                    let error = SpecError::new(at(), format!("nothing of a caller is named `{fact}`"));
                    errors.push(error.help(format!("write {}", Fact::WORDS)));
                }
            }
        }
        let audience = match &spec.audience[..] {
            [one] => Value::from(one.as_str()),
            all => Value::from(all.to_vec()),
        };
        let always = [("iss".to_owned(), Value::from(spec.issuer.as_str())), ("aud".to_owned(), audience)];
        if errors.is_empty() {
            Ok(Self { always: always.into_iter().collect(), facts: facts.into() })
        } else {
            Err(errors)
        }
    }

    /// The claims for a caller, as JSON. Times are seconds since 1970.
    pub(super) fn of(&self, caller: &Caller, now: u64, until: u64) -> String {
        let mut claims = self.always.clone();
        let mut set = |name: &str, value: Value| _ = claims.insert(name.to_owned(), value);
        set("sub", caller.subject.as_ref().into());
        set("iat", now.into());
        set("exp", until.into());
        let lot: u128 = fastrand::u128(..);
        set("jti", URL_SAFE_NO_PAD.encode(lot.to_be_bytes()).into());
        if let Some(scope) = caller.fact(&Fact::Scopes) {
            set("scope", scope.into());
        }
        if !caller.groups.is_empty() {
            set("groups", caller.groups.iter().map(|group| Value::from(group.as_ref())).collect());
        }
        for (name, fact) in &self.facts {
            if let Some(value) = valued(caller, fact) {
                set(name, value);
            }
        }
        Value::Object(claims).to_string()
    }
}

/// A fact with its type; none where the caller has none.
fn valued(caller: &Caller, fact: &Fact) -> Option<Value> {
    match fact {
        Fact::Claim(path) => caller.claim(path).filter(|value| !value.is_null()).cloned(),
        other => caller.fact(other).map(Value::from),
    }
}
