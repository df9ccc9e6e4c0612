//! A door for fuzzing: what the gateway makes of the cookies of a request, with keys that everybody knows.

use http::HeaderMap;
use pylon_core::connection::Scheme;
use pylon_core::secret::Secret;

use super::cookies::{Kept, Names};
use super::ring::Ring;
use super::ticket::Ticket;

const NAME: &str = "pylon_session";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The content of the envelope in these cookies, and whether it is a session; none where nothing opens.
///
/// # Panics
/// Where what reads cookies contradicts itself.
pub fn opened(headers: &HeaderMap, https: bool) -> Option<(Vec<u8>, bool)> {
    let (names, scheme) = (Names::new(NAME), if https { Scheme::Https } else { Scheme::Http });
    let jar = names.of(scheme);
    for (name, _) in jar.logins(headers) {
        assert!(name.starts_with(jar.name()) && jar.forget_login(name).is_some());
    }
    let envelope = match jar.session(headers) {
        Kept::Nothing | Kept::Broken => return None,
        Kept::Whole(crumb, envelope) => {
            assert!(crumb.ends_with(envelope));
            envelope.to_vec()
        }
        Kept::Parts(envelope) => envelope,
    };
    let opened = ring()?.open(jar.name().as_bytes(), &envelope)?;
    let is_session = serde_json::from_slice::<Ticket>(&opened.content).is_ok();
    Some((opened.content, is_session))
}

/// Lines of `Set-Cookie` with this content in an envelope, where it is short enough for cookies.
pub fn sealed(content: &[u8], https: bool) -> Option<Vec<http::HeaderValue>> {
    let (names, scheme) = (Names::new(NAME), if https { Scheme::Https } else { Scheme::Http });
    let jar = names.of(scheme);
    jar.write(&ring()?.seal(jar.name().as_bytes(), content)?, 60, &HeaderMap::new())
}

fn ring() -> Option<Ring> {
    Ring::new([&Secret::new(SECRET)])
}
