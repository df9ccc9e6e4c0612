//! What may stand behind a body.

use http::{HeaderName, header};

/// Fields that decide framing, routing, authentication or the meaning of the head may not come behind a body
/// (RFC 9110 §6.5.1); they are dropped.
pub fn may_trail(name: &HeaderName) -> bool {
    ![
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TRAILER,
        header::TE,
        header::UPGRADE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::SET_COOKIE,
        header::AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
        header::WWW_AUTHENTICATE,
        header::CACHE_CONTROL,
        header::LOCATION,
    ]
    .contains(name)
}
