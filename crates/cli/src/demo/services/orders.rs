//! The sample service `orders`: lists orders and takes new ones. It remembers the last hundred.

use std::collections::VecDeque;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::demo::services::reply::{Ask, Reply, Service};
use crate::demo::services::{inventory, users};

/// How many orders are remembered.
const KEPT: usize = 100;

/// The most of one thing that can be ordered at once.
const MOST: u64 = 100;

/// What was ordered before the demo began: user, thing, quantity.
const FIRST: [(usize, &str, u64); 6] =
    [(1, "lamp-2", 1), (1, "mug-7", 4), (2, "chair-1", 2), (3, "desk-4", 1), (3, "vase-5", 1), (5, "mug-7", 12)];

#[derive(Debug)]
pub(super) struct Orders {
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    next: u64,
    orders: VecDeque<Order>,
}

#[derive(Debug, Clone, Serialize)]
struct Order {
    id: u64,
    user: usize,
    sku: String,
    quantity: u64,
    total: Money,
    status: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Money {
    amount: String,
    currency: &'static str,
}

/// An order as clients send it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    user: usize,
    sku: String,
    quantity: u64,
}

impl Default for Orders {
    fn default() -> Self {
        let mut book = Book { next: 1001, orders: VecDeque::new() };
        for (user, sku, quantity) in FIRST {
            // Every one of them is of a thing that exists, so none is refused.
            let _ = book.place(NewOrder { user, sku: sku.to_owned(), quantity }, "shipped");
        }
        Self { book: Mutex::new(book) }
    }
}

impl Service for Orders {
    fn name(&self) -> &'static str {
        "orders"
    }

    fn answer(&self, ask: &Ask<'_>) -> Reply {
        if ask.path() != "/orders" {
            return match ask.below("/orders") {
                Some(id) => ask.only_get(|| self.one(id).map_or_else(Reply::not_found, Reply::ok)),
                None => Reply::not_found(),
            };
        }
        if ask.reads() {
            self.list(ask.query("user"))
        } else if ask.head.method == Method::POST {
            self.take(ask.body)
        } else {
            Reply::only("GET, HEAD, POST")
        }
    }
}

impl Orders {
    fn one(&self, id: &str) -> Option<Value> {
        let id: u64 = id.parse().ok()?;
        self.book.lock().orders.iter().find(|order| order.id == id).map(|order| json!(order))
    }

    fn list(&self, user: Option<&str>) -> Reply {
        let user: Option<usize> = match user.map(str::parse).transpose() {
            Ok(user) => user,
            Err(_) => return Reply::refusal(StatusCode::BAD_REQUEST, "`user` is the number of a user"),
        };
        let book = self.book.lock();
        let orders: Vec<_> = book.orders.iter().filter(|order| user.is_none_or(|user| order.user == user)).collect();
        Reply::ok(json!({ "orders": orders }))
    }

    fn take(&self, body: &[u8]) -> Reply {
        let order: NewOrder = match serde_json::from_slice(body) {
            Ok(order) => order,
            Err(error) => return Reply::refusal(StatusCode::BAD_REQUEST, &format!("this is not an order: {error}")),
        };
        match self.book.lock().place(order, "accepted") {
            Ok(order) => Reply::created(format!("/orders/{}", order.id), json!(order)),
            Err(why) => Reply::refusal(StatusCode::UNPROCESSABLE_ENTITY, why),
        }
    }
}

impl Book {
    /// Enters an order, or says why it cannot be.
    fn place(&mut self, new: NewOrder, status: &'static str) -> Result<Order, &'static str> {
        let NewOrder { user, sku, quantity } = new;
        if !users::exists(user) {
            return Err("there is no such user");
        }
        if !(1..=MOST).contains(&quantity) {
            return Err("the quantity is from 1 to 100");
        }
        let cents = inventory::item(&sku).ok_or("the shop does not sell that")?.cents * quantity;
        let total = Money { amount: format!("{}.{:02}", cents / 100, cents % 100), currency: "EUR" };
        let order = Order { id: self.next, user, sku, quantity, total, status };
        self.next += 1;
        if self.orders.len() >= KEPT {
            self.orders.pop_front();
        }
        self.orders.push_back(order.clone());
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_orders_are_remembered_and_the_oldest_forgotten() {
        let orders = Orders::default();
        assert_eq!(orders.book.lock().orders.len(), FIRST.len());
        for _ in 0..KEPT {
            assert_eq!(orders.take(br#"{"user":4,"sku":"mug-7","quantity":1}"#).status, StatusCode::CREATED);
        }
        assert!(orders.one("1001").is_none() && orders.one("1106").is_some());
        assert_eq!(orders.book.lock().orders.len(), KEPT);
    }
}
