//! Knows every place that may open a socket: traffic only in `net` and `upstream`, all else by name in a table.

use super::Finding;
use super::source::Source;

/// Folders and files outside `net` and `upstream` that may open sockets, and for what.
const DIALERS: &[(&str, &str)] = &[
    ("crates/control/src/admin", "listens for the admin API"),
    ("crates/cli/src/remote.rs", "asks the admin API of a gateway that runs, on behalf of a command"),
    ("crates/control/src/upgrade", "asks a gateway on this machine for its upgrade"),
    ("crates/cli/src/demo", "plays the services and the client of the demo"),
];

/// The rungs that exist to open sockets.
const RUNGS: [&str; 2] = ["crates/net/", "crates/upstream/"];

const CALLS: [&str; 10] = [
    "TcpStream::connect",
    "TcpListener::bind",
    "TcpSocket::new",
    "UdpSocket::bind",
    "UnixStream::connect",
    "UnixListener::bind",
    "UnixDatagram::bind",
    "UnixDatagram::unbound",
    "Socket::new",
    "Socket::pair",
];

pub(crate) fn check(source: &Source<'_>) -> Vec<Finding> {
    let path = source.path;
    let rung = path.starts_with("crates/") && path.contains("/src/");
    let may = RUNGS.iter().chain(DIALERS.iter().map(|(folder, _)| folder)).any(|folder| path.starts_with(folder));
    if !rung || may {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, code) in source.shipped() {
        if let Some(call) = CALLS.iter().find(|call| calls(code, call)) {
            let message = format!(
                "`{call}` outside `net` and `upstream`: take the connection as a value, or enter the module in xtask's `dialers` table with a deadline, a breaker and a metric"
            );
            findings.push(Finding::fail(path, line, message));
        }
    }
    findings
}

/// Whether the code names this very call, and not one that ends with the same letters.
fn calls(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        let before = code.get(..at).and_then(|head| head.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::source::Source;

    fn found(path: &str, text: &str) -> usize {
        check(&Source::read(path, text)).len()
    }

    #[test]
    fn a_socket_outside_net_and_upstream_is_found() {
        let text = "async fn f() { let s = tokio::net::TcpStream::connect(a).await; }\n";
        assert_eq!(found("crates/policy/src/limit/x.rs", text), 1);
        assert_eq!(found("crates/net/src/dial.rs", text), 0);
        assert_eq!(found("crates/control/src/admin/listen.rs", text), 0);
        assert_eq!(found("testkit/src/lib.rs", text), 0);
    }

    #[test]
    fn tests_comments_and_other_types_are_not_taken_for_sockets() {
        assert_eq!(found("crates/core/src/x.rs", "// TcpListener::bind\nfn f() { WebSocket::new(); }\n"), 0);
        assert_eq!(found("crates/core/src/x.rs", "#[cfg(test)]\nmod tests {\n  fn f() { Socket::new(); }\n}\n"), 0);
        assert_eq!(found("crates/core/src/x.rs", "fn f() { socket2::Socket::new(d, t, None); }\n"), 1);
    }
}
