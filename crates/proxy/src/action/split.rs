//! Sends requests to several upstreams by weight: `split: { orders: 95%, orders-next: 5% }`.
//!
//! The choice is sticky: a hash of the client decides, so that the same client meets the same upstream for as long as
//! the shares stand. Growing a share moves only the clients that it gains.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderName;
use pylon_core::Request;
use pylon_core::cookie;
use pylon_core::exchange::Exchange;
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Percent;
use pylon_upstream::upstream::Upstream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forward::Forward;

/// Shares by upstream; together they are 100%.
pub type SplitSpec = BTreeMap<String, Percent>;

/// By what the choice of a split sticks. Short: `client` (the default: by address) or `none` (each request for itself).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickySpec {
    /// By the value of this cookie; clients without it go by address. Default: none.
    /// Example: `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// By the value of this header field; requests without it go by address. Default: none.
    /// Example: `x-tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// `true`: not at all. Default `false`. Example: `true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub none: bool,
}

impl FromScalar for StickySpec {
    const EXPECTING: &'static str = "`client` or `none`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::default()),
            "none" => Ok(Self { none: true, ..Self::default() }),
            other => Err(format!(
                "`{other}` is not something to stick by: write `client`, `none`, `{{ cookie: NAME }}` or `{{ header: NAME }}`"
            )),
        }
    }
}

/// A compiled `split`.
#[derive(Debug)]
pub struct Split {
    /// Each with the upper end of its share, in hundredths of a percent; the last ends at 10,000.
    parts: Vec<(u16, Forward)>,
    sticky: Sticky,
}

#[derive(Debug, PartialEq, Eq)]
enum Sticky {
    Client,
    Cookie(String),
    Header(HeaderName),
    None,
}

impl Split {
    /// Compiles shares; `resolve` makes the forward to an upstream by its name, or says why there is none.
    pub fn compile(
        spec: &SplitSpec,
        sticky: &StickySpec,
        mut resolve: impl FnMut(&str) -> Result<Forward, SpecError>,
    ) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let mut parts = Vec::new();
        let mut end = 0_u32;
        for (name, share) in spec {
            end += u32::from(share.basis_points());
            match resolve(name) {
                Ok(forward) => parts.push((u16::try_from(end).unwrap_or(u16::MAX), forward)),
                Err(error) => errors.push(error.below(&FieldPath::root().key(name))),
            }
        }
        if end != 10_000 {
            let sum = f64::from(end) / 100.0;
            errors.push(
                SpecError::new(FieldPath::root(), format!("the shares add up to {sum}%"))
                    .help("make them add up to 100%"),
            );
        }
        match Sticky::compile(sticky) {
            Ok(sticky) if errors.is_empty() => Ok(Self { parts, sticky }),
            Ok(_) => Err(errors),
            Err(error) => {
                errors.push(error);
                Err(errors)
            }
        }
    }

    /// The upstream for this request.
    pub(crate) fn pick(&self, request: &Request, cx: &Exchange) -> &Forward {
        match self.point(request, cx) {
            Some(point) => self.at(point),
            None => self.at(fastrand::u16(0..10_000)),
        }
    }

    /// The upstream for this request where that is settled: nothing where each request draws a lot.
    pub(crate) fn settled(&self, request: &Request, cx: &Exchange) -> Option<&Forward> {
        self.point(request, cx).map(|point| self.at(point))
    }

    /// The ways to all upstreams that it chooses among.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.parts.iter().map(|(_, forward)| forward)
    }

    /// All upstreams that it chooses among.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.parts.iter().map(|(_, forward)| &forward.upstream)
    }

    fn point(&self, request: &Request, cx: &Exchange) -> Option<u16> {
        if self.sticky == Sticky::None {
            return None;
        }
        Some(self.sticky.key(request).map_or_else(|| point_of(cx.client), point_of))
    }

    fn at(&self, point: u16) -> &Forward {
        let index = self.parts.partition_point(|(end, _)| *end <= point).min(self.parts.len() - 1);
        #[expect(
            clippy::indexing_slicing,
            reason = "shares of 100% have at least one part, and the index is capped to the last"
        )]
        let (_, forward) = &self.parts[index];
        forward
    }
}

impl Sticky {
    fn compile(spec: &StickySpec) -> Result<Self, SpecError> {
        match (&spec.cookie, &spec.header, spec.none) {
            (None, None, false) => Ok(Self::Client),
            (None, None, true) => Ok(Self::None),
            (Some(name), None, false) => Ok(Self::Cookie(name.clone())),
            (None, Some(name), false) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| SpecError::new(FieldPath::root().key("header"), format!("`{name}` is not a header name"))),
            _ => Err(SpecError::new(FieldPath::root(), "a split sticks by one thing only")
                .help("keep one of `cookie`, `header` and `none`")),
        }
    }

    fn key<'r>(&self, request: &'r Request) -> Option<&'r [u8]> {
        match self {
            Self::Client | Self::None => None,
            Self::Header(name) => request.headers().get(name).map(http::HeaderValue::as_bytes),
            Self::Cookie(name) => cookie::value(request.headers(), name),
        }
    }
}

/// A point from 0 to 9,999, the same for the same key on every node.
fn point_of(key: impl Hash) -> u16 {
    // SipHash with fixed keys: stable between processes of one build, and even.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % 10_000) as u16
}
