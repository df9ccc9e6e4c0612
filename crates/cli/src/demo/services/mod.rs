//! The sample services of the demo: small HTTP/1.1 servers, each on its own loopback port, on one thread of their own.
//!
//! What they answer depends on the request and on counters only, never on chance or the time of day, so that the demo
//! shows the same each time. Everything is bounded: bodies, connections, and the orders that are kept.

mod inventory;
mod io;
mod orders;
mod recommendations;
mod reply;
mod server;
mod users;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::watch;

use crate::demo::services::inventory::Inventory;
use crate::demo::services::orders::Orders;
use crate::demo::services::recommendations::Recommendations;
use crate::demo::services::reply::Service;
use crate::demo::services::users::Users;

/// The port of each service on 127.0.0.1; 0 asks for a free one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// `GET /users`, `GET /users/{id}`, `GET /whoami`.
    pub(crate) users: u16,
    /// `GET /orders?user=`, `GET /orders/{id}`, `POST /orders`.
    pub(crate) orders: u16,
    /// `GET /inventory/{sku}`; every fifth answer is a 503.
    pub(crate) inventory: u16,
    /// `GET /recommendations/{user}`, after 200 to 900 ms.
    pub(crate) recommendations: u16,
    /// The same, after 20 to 60 ms.
    pub(crate) recommendations_v2: u16,
}

impl Ports {
    /// Each port with the name of its service, which is its upstream's name in the document.
    pub(crate) fn by_name(self) -> [(&'static str, u16); 5] {
        [
            ("users", self.users),
            ("orders", self.orders),
            ("inventory", self.inventory),
            ("recommendations", self.recommendations),
            ("recommendations-v2", self.recommendations_v2),
        ]
    }
}

/// The running services. They end with [`Services::stop`], or when this is dropped.
#[derive(Debug)]
pub(crate) struct Services {
    ports: Ports,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// The ports that they listen on; none is 0.
    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// Ends them: running answers get half a second, idle connections are closed at once.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Nobody listens any more if the thread has ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts all services. They answer as soon as this returns.
///
/// # Errors
///
/// A port that is taken, or no thread to be had.
pub(crate) fn start(wanted: Ports) -> anyhow::Result<Services> {
    let mut ports = Ports::default();
    let (first, second) = (Recommendations::first(), Recommendations::second());
    let services = vec![
        open(wanted.users, &mut ports.users, Users)?,
        open(wanted.orders, &mut ports.orders, Orders::default())?,
        open(wanted.inventory, &mut ports.inventory, Inventory::default())?,
        open(wanted.recommendations, &mut ports.recommendations, first)?,
        open(wanted.recommendations_v2, &mut ports.recommendations_v2, second)?,
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let services = {
        // Sockets join a runtime where they are made ready for it: here, so that a failure is the caller's to hear of.
        let _inside = runtime.enter();
        let ready =
            services.into_iter().map(|(listener, service)| Ok((tokio::net::TcpListener::from_std(listener)?, service)));
        ready.collect::<std::io::Result<Vec<_>>>()?
    };
    let (stop, stopped) = watch::channel(false);
    let thread = std::thread::Builder::new()
        .name("demo-services".into())
        .spawn(move || runtime.block_on(server::serve(services, stopped)))?;
    Ok(Services { ports, stop, thread: Some(thread) })
}

/// Binds 127.0.0.1:`wanted` for `service` and notes the port in `port`.
fn open(wanted: u16, port: &mut u16, service: impl Service) -> anyhow::Result<(TcpListener, Arc<dyn Service>)> {
    let place = || format!("the sample service {} cannot listen on 127.0.0.1:{wanted}", service.name());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).with_context(place)?;
    listener.set_nonblocking(true).with_context(place)?;
    *port = listener.local_addr().with_context(place)?.port();
    Ok((listener, Arc::new(service)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use serde_json::Value;
    use tokio::time::Instant;

    /// Sends `head` and `body` on a connection of its own and reads all that comes: status, head, body.
    fn ask(port: u16, head: &str, body: &str) -> (u16, String, String) {
        let mut stream = connect(port);
        let length = body.len();
        write!(stream, "{head} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    fn get(port: u16, path: &str) -> (u16, Value) {
        let (status, _, body) = ask(port, &format!("GET {path}"), "");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn connect(port: u16) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    #[test]
    fn each_service_says_that_it_is_well_and_by_its_name() {
        let services = start(Ports::default()).unwrap();
        for (name, port) in services.ports().by_name() {
            let (status, health) = get(port, "/healthz");
            assert_eq!((status, &health["service"], &health["status"]), (200, &name.into(), &"ok".into()));
            assert_eq!(get(port, "/nothing").0, 404);
        }
    }

    #[test]
    fn users_are_listed_and_found_by_id() {
        let services = start(Ports::default()).unwrap();
        let port = services.ports().users;
        assert_eq!(get(port, "/users").1["users"].as_array().unwrap().len(), 5);
        let (status, user) = get(port, "/users/1");
        assert_eq!((status, &user["id"], &user["name"]), (200, &1.into(), &"Ada Lovelace".into()));
        assert_eq!((get(port, "/users/77").0, get(port, "/users/ada").0), (404, 404));
        let (status, head, _) = ask(port, "DELETE /users/1", "");
        assert!(status == 405 && head.to_ascii_lowercase().contains("\r\nallow: get, head\r\n"), "{head}");
        let (status, head, body) = ask(port, "HEAD /users/1", "");
        assert!(status == 200 && body.is_empty() && head.contains("content-length: "), "{head}");
    }

    #[test]
    fn a_service_tells_which_headers_reached_it() {
        let services = start(Ports::default()).unwrap();
        assert_eq!(get(services.ports().users, "/whoami?a=b").1["headers"]["host"], "demo");
        assert_eq!(get(services.ports().users, "/whoami?a=b").1["query"], "a=b");
    }

    #[test]
    fn an_order_that_was_placed_is_found_again() {
        let services = start(Ports::default()).unwrap();
        let port = services.ports().orders;
        let before = get(port, "/orders?user=2").1["orders"].as_array().unwrap().len();
        let (status, head, body) = ask(port, "POST /orders", r#"{"user":2,"sku":"lamp-2","quantity":3}"#);
        let order: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &order["total"]["amount"]), (201, &"238.50".into()), "{body}");
        let place = format!("/orders/{}", order["id"]);
        assert!(head.contains(&format!("location: {place}")), "{head}");
        assert_eq!(get(port, &place).1, order);
        assert_eq!(get(port, "/orders?user=2").1["orders"].as_array().unwrap().len(), before + 1);
    }

    #[test]
    fn bad_orders_and_large_ones_are_refused() {
        let services = start(Ports::default()).unwrap();
        let port = services.ports().orders;
        for (body, status) in [
            ("", 400),
            ("{", 400),
            (r#"{"user":1,"sku":"lamp-2"}"#, 400),
            (r#"{"user":1,"sku":"no-such-thing","quantity":1}"#, 422),
            (r#"{"user":9,"sku":"lamp-2","quantity":1}"#, 422),
            (r#"{"user":1,"sku":"lamp-2","quantity":0}"#, 422),
        ] {
            assert_eq!(ask(port, "POST /orders", body).0, status, "{body}");
        }
        assert_eq!(ask(port, "POST /orders", &" ".repeat(server::MAX_BODY + 1)).0, 413);
        assert_eq!(get(port, "/orders?user=one").0, 400);
    }

    #[test]
    fn every_fifth_answer_of_the_inventory_is_a_503() {
        let services = start(Ports::default()).unwrap();
        let port = services.ports().inventory;
        let mut statuses = Vec::new();
        for _ in 0..10 {
            get(port, "/healthz");
            statuses.push(get(port, "/inventory/lamp-2").0);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 503, 200, 200, 200, 200, 503]);
    }

    #[test]
    fn recommendations_are_slow_and_their_successor_is_quick() {
        let services = start(Ports::default()).unwrap();
        let ports = services.ports();
        for (port, least, model) in [(ports.recommendations, 200, "v1"), (ports.recommendations_v2, 20, "v2")] {
            let began = Instant::now();
            let (status, answer) = get(port, "/recommendations/1");
            assert_eq!((status, &answer["model"]), (200, &model.into()));
            assert!(began.elapsed() >= Duration::from_millis(least));
        }
    }

    #[test]
    fn stopping_closes_idle_connections_and_frees_the_ports() {
        let services = start(Ports::default()).unwrap();
        let ports = services.ports();
        let mut idle = connect(ports.users);
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: demo\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 1024]).unwrap() > 0);
        let _silent = connect(ports.orders);
        let mut slow = connect(ports.recommendations);
        slow.write_all(b"GET /recommendations/1 HTTP/1.1\r\nhost: demo\r\n\r\n").unwrap();
        let began = Instant::now();
        services.stop();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(idle.read(&mut [0; 1024]).unwrap(), 0);
        assert!(start(ports).is_ok(), "the ports are still taken");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_service() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let orders = held.local_addr().unwrap().port();
        let error = start(Ports { orders, ..Ports::default() }).unwrap_err().to_string();
        assert_eq!(error, format!("the sample service orders cannot listen on 127.0.0.1:{orders}"));
    }
}
