//! Where the gateway itself stands, and how far endpoints are from it.

use pylon_core::short::FromScalar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where this gateway stands. Short: its zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalitySpec {
    /// Its zone: endpoints in the same are asked first. Default: what the environment says in `PYLON_ZONE`, if anything.
    /// Example: `eu-1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its region: endpoints in another one are asked last. Default: what the environment says in `PYLON_REGION`, if anything.
    /// Example: `eu-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl FromScalar for LocalitySpec {
    const EXPECTING: &'static str = "a zone such as `eu-1a`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { zone: Some(text.to_owned()), region: None })
    }
}

/// How far an endpoint is from the gateway, as far as both say where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// In the same zone; or the gateway does not say where it stands.
    Near,
    /// In another zone of the region, or nobody knows.
    Region,
    /// In another region.
    Far,
}

impl LocalitySpec {
    /// How far it is to somebody who stands there.
    pub(crate) fn distance(&self, zone: Option<&str>, region: Option<&str>) -> Distance {
        let other_region = matches!((&self.region, region), (Some(own), Some(other)) if own != other);
        match (&self.zone, zone) {
            _ if other_region => Distance::Far,
            (Some(own), Some(other)) if own == other => Distance::Near,
            (Some(_), _) => Distance::Region,
            (None, _) => Distance::Near,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_zone_is_near_and_another_region_is_far() {
        let own = LocalitySpec { zone: Some("a".to_owned()), region: Some("eu".to_owned()) };
        assert_eq!(own.distance(Some("a"), Some("eu")), Distance::Near);
        assert_eq!(own.distance(Some("a"), None), Distance::Near);
        assert_eq!(own.distance(Some("b"), Some("eu")), Distance::Region);
        assert_eq!(own.distance(None, None), Distance::Region);
        assert_eq!(own.distance(Some("a"), Some("us")), Distance::Far, "zones of other regions may be named alike");
        assert_eq!(LocalitySpec::default().distance(Some("b"), Some("us")), Distance::Near);
    }
}
