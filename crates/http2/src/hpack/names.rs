//! The static table (RFC 7541 appendix A).

use http::HeaderName;
use http::header as h;

/// Where the dynamic table begins.
pub(super) const DYNAMIC: usize = 62;

pub(super) const AUTHORITY: usize = 1;
pub(super) const METHOD: usize = 2;
pub(super) const PATH: usize = 4;
pub(super) const SCHEME: usize = 6;
pub(super) const STATUS: usize = 8;
pub(super) const ACCEPT_ENCODING: usize = 16;

/// The names behind those of pseudo-fields, the first at 15.
static NAMES: [HeaderName; 47] = [
    h::ACCEPT_CHARSET,
    h::ACCEPT_ENCODING,
    h::ACCEPT_LANGUAGE,
    h::ACCEPT_RANGES,
    h::ACCEPT,
    h::ACCESS_CONTROL_ALLOW_ORIGIN,
    h::AGE,
    h::ALLOW,
    h::AUTHORIZATION,
    h::CACHE_CONTROL,
    h::CONTENT_DISPOSITION,
    h::CONTENT_ENCODING,
    h::CONTENT_LANGUAGE,
    h::CONTENT_LENGTH,
    h::CONTENT_LOCATION,
    h::CONTENT_RANGE,
    h::CONTENT_TYPE,
    h::COOKIE,
    h::DATE,
    h::ETAG,
    h::EXPECT,
    h::EXPIRES,
    h::FROM,
    h::HOST,
    h::IF_MATCH,
    h::IF_MODIFIED_SINCE,
    h::IF_NONE_MATCH,
    h::IF_RANGE,
    h::IF_UNMODIFIED_SINCE,
    h::LAST_MODIFIED,
    h::LINK,
    h::LOCATION,
    h::MAX_FORWARDS,
    h::PROXY_AUTHENTICATE,
    h::PROXY_AUTHORIZATION,
    h::RANGE,
    h::REFERER,
    h::REFRESH,
    h::RETRY_AFTER,
    h::SERVER,
    h::SET_COOKIE,
    h::STRICT_TRANSPORT_SECURITY,
    h::TRANSFER_ENCODING,
    h::USER_AGENT,
    h::VARY,
    h::VIA,
    h::WWW_AUTHENTICATE,
];

/// The name of an entry that is no pseudo-field.
pub(super) fn name(index: usize) -> Option<&'static HeaderName> {
    NAMES.get(index.checked_sub(15)?)
}

/// Where a name stands.
pub(super) fn index(name: &HeaderName) -> Option<usize> {
    NAMES.iter().position(|known| known == name).map(|at| at.saturating_add(15))
}
