//! The `Date` of answers that have none (RFC 9110 §6.6.1), written once a second by each worker.

use std::cell::RefCell;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::HeaderValue;
use pylon_observe::clock::unix_now;

/// The present as HTTP writes it.
struct Date {
    until: Instant,
    value: HeaderValue,
    /// As a whole line of HTTP/1.1.
    line: Vec<u8>,
}

thread_local! {
    static LAST: RefCell<Option<Date>> = const { RefCell::new(None) };
}

/// The present.
pub(crate) fn now() -> HeaderValue {
    last(|date| date.value.clone())
}

/// Works with the present as a whole line of HTTP/1.1.
pub(crate) fn with<R>(work: impl FnOnce(&[u8]) -> R) -> R {
    last(|date| work(&date.line))
}

fn last<R>(work: impl FnOnce(&Date) -> R) -> R {
    let now = tokio::time::Instant::now().into_std();
    LAST.with_borrow_mut(|last| match last {
        Some(date) if now < date.until => work(date),
        _ => work(last.insert(at(now))),
    })
}

fn at(now: Instant) -> Date {
    let unix = unix_now();
    let text = httpdate::fmt_http_date(UNIX_EPOCH + unix);
    let line = format!("date: {text}\r\n").into_bytes();
    let value = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    let left = Duration::from_secs(1).saturating_sub(Duration::from_nanos(unix.subsec_nanos().into()));
    Date { until: now + left, value, line }
}
