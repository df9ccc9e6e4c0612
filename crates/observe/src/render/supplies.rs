//! The families of what policies rest on: keys of issuers, API keys, stores.

use super::upstreams::aged;
use super::{head, labelled};
use crate::catalogue;
use crate::insight::SupplyReading;

pub(super) fn render(out: &mut String, all: &[SupplyReading]) {
    head(out, &catalogue::SUPPLY_UP);
    for one in all {
        labelled(out, &catalogue::SUPPLY_UP, &[one.kind, &one.from], one.up.into());
    }
    head(out, &catalogue::SUPPLY_ITEMS);
    for (one, items) in all.iter().filter_map(|one| Some((one, one.items?))) {
        labelled(out, &catalogue::SUPPLY_ITEMS, &[one.kind, &one.from], items);
    }
    head(out, &catalogue::SUPPLY_AGE);
    for (one, age) in all.iter().filter_map(|one| Some((one, one.age?))) {
        aged(out, &catalogue::SUPPLY_AGE, &[one.kind, &one.from], age);
    }
    head(out, &catalogue::SUPPLY_FAILURES);
    for one in all {
        labelled(out, &catalogue::SUPPLY_FAILURES, &[one.kind, &one.from], one.failures);
    }
}
