//! Where the gateway itself stands, where endpoints do, and how far they are from it.

use std::sync::Arc;

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

/// Where an endpoint stands, as far as whoever names it says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Whereabouts {
    /// A zone of a cloud, a data centre, a rack.
    pub(crate) zone: Option<Arc<str>>,
    /// The region that the zone is in.
    pub(crate) region: Option<Arc<str>>,
    /// The zones that it is to serve, where that is said: it is near to those, whatever zone it stands in.
    pub(crate) serves: Option<Arc<[Arc<str>]>>,
}

impl Whereabouts {
    /// What is empty is not said.
    pub(crate) fn new(zone: Option<&str>, region: Option<&str>) -> Self {
        let said = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Arc::from);
        Self { zone: said(zone), region: said(region), serves: None }
    }
}

impl LocalitySpec {
    /// How far it is to somebody who stands there.
    pub(crate) fn distance(&self, there: &Whereabouts) -> Distance {
        let other_region = matches!((&self.region, &there.region), (Some(own), Some(other)) if **own != **other);
        match (&self.zone, &there.serves, &there.zone) {
            _ if other_region => Distance::Far,
            (None, ..) => Distance::Near,
            (Some(own), Some(serves), _) if serves.iter().any(|zone| **zone == **own) => Distance::Near,
            (Some(own), None, Some(other)) if **own == **other => Distance::Near,
            (Some(_), ..) => Distance::Region,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_zone_is_near_and_another_region_is_far() {
        let own = LocalitySpec { zone: Some("a".to_owned()), region: Some("eu".to_owned()) };
        let to = |zone, region| own.distance(&Whereabouts::new(zone, region));
        assert_eq!(to(Some("a"), Some("eu")), Distance::Near);
        assert_eq!(to(Some("a"), None), Distance::Near);
        assert_eq!(to(Some("b"), Some("eu")), Distance::Region);
        assert_eq!((to(None, None), to(Some(""), Some(""))), (Distance::Region, Distance::Region));
        assert_eq!(to(Some("a"), Some("us")), Distance::Far, "zones of other regions may be named alike");
        assert_eq!(LocalitySpec::default().distance(&Whereabouts::new(Some("b"), Some("us"))), Distance::Near);
    }

    #[test]
    fn whom_it_is_to_serve_counts_more_than_where_it_stands() {
        let own = LocalitySpec { zone: Some("a".to_owned()), region: None };
        let serving = |zones: &[&str]| {
            let serves = Some(zones.iter().map(|zone| Arc::from(*zone)).collect());
            own.distance(&Whereabouts { serves, ..Whereabouts::new(Some("a"), None) })
        };
        assert_eq!((serving(&["b", "a"]), serving(&["b"])), (Distance::Near, Distance::Region));
    }
}
