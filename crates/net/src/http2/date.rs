//! The `Date` of answers that have none (RFC 9110 §6.6.1), written once a second by each worker.

use std::cell::RefCell;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::HeaderValue;
use pylon_observe::clock::unix_now;

thread_local! {
    static LAST: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
}

/// The present.
pub(super) fn now() -> HeaderValue {
    let now = super::now();
    LAST.with_borrow_mut(|last| {
        if let Some((until, date)) = last
            && now < *until
        {
            return date.clone();
        }
        let unix = unix_now();
        let text = httpdate::fmt_http_date(UNIX_EPOCH + unix);
        let date = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let left = Duration::from_secs(1).saturating_sub(Duration::from_nanos(unix.subsec_nanos().into()));
        *last = Some((now + left, date.clone()));
        date
    })
}
