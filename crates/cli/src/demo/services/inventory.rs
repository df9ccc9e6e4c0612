//! The sample service `inventory`: what the shop has in stock. It is flaky: every fifth answer is a 503.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use serde_json::json;

use crate::demo::services::reply::{Ask, Reply, Service};

/// One thing that the shop sells.
#[derive(Debug)]
pub(super) struct Item {
    /// How it is called in addresses and orders.
    pub(super) sku: &'static str,
    /// How it is called in the shop.
    pub(super) title: &'static str,
    /// Its price in cents.
    pub(super) cents: u64,
    stock: u32,
}

pub(super) const ITEMS: [Item; 6] = [
    Item { sku: "lamp-2", title: "Desk lamp, brass", cents: 7950, stock: 14 },
    Item { sku: "chair-1", title: "Oak chair", cents: 18_900, stock: 6 },
    Item { sku: "desk-4", title: "Standing desk", cents: 64_500, stock: 2 },
    Item { sku: "mug-7", title: "Stoneware mug", cents: 1650, stock: 231 },
    Item { sku: "rug-3", title: "Wool rug, grey", cents: 22_900, stock: 0 },
    Item { sku: "vase-5", title: "Glass vase", cents: 4400, stock: 38 },
];

/// The item of that name.
pub(super) fn item(sku: &str) -> Option<&'static Item> {
    ITEMS.iter().find(|item| item.sku == sku)
}

/// Counts its answers.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    answers: AtomicU64,
}

impl Service for Inventory {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn answer(&self, ask: &Ask<'_>) -> Reply {
        let Some(sku) = ask.below("/inventory") else { return Reply::not_found() };
        if !ask.reads() {
            return Reply::only("GET, HEAD");
        }
        let before = self.answers.fetch_add(1, Ordering::Relaxed);
        if before % 5 == 4 {
            return Reply::refusal(StatusCode::SERVICE_UNAVAILABLE, "the warehouse does not answer; try again");
        }
        let Some(Item { title, stock, .. }) = item(sku) else { return Reply::not_found() };
        Reply::ok(json!({ "sku": sku, "title": title, "in_stock": stock, "available": *stock > 0 }))
    }
}
