//! When a request is sent once more because its route says so. Pure: time, lots and what is left are arguments.
//!
//! What is safe without being asked for (a stale connection, an endpoint that cannot be reached) is decided in `past.rs` and
//! needs nothing from here.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use pylon_core::attempts::Cause;
use pylon_core::exchange::Timer;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::ByteSize;

use self::spec::{MethodsSpec, On, RetrySpec};
use crate::error::Fault;

pub mod spec;

/// More retries than that are no help, and hold up who waits.
const MOST_ATTEMPTS: u8 = 5;
/// How much may be held of a request.
const MOST_BODY: ByteSize = ByteSize::new(16 * 1024 * 1024);

/// A compiled [`RetrySpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts may follow the first.
    pub(crate) attempts: u8,
    on: Box<[On]>,
    base: Duration,
    max: Duration,
    /// How long each attempt may take.
    pub(crate) per_try: Option<Duration>,
    max_wait: Duration,
    /// Whether any request may be sent twice.
    pub(crate) any: bool,
    /// How much is held of a body.
    pub(crate) max_body: usize,
}

impl Retry {
    /// Compiles what is written: none where that is `off`. All errors are told at once.
    pub fn compile(spec: &RetrySpec) -> Result<Option<Self>, Vec<SpecError>> {
        let mut errors = Vec::new();
        let mut wrong = |at: FieldPath, problem: String, help: &str| {
            errors.push(SpecError::new(at, problem).help(help));
        };
        let key = |key: &str| FieldPath::root().key(key);
        if spec.attempts > MOST_ATTEMPTS {
            let problem = format!("{} attempts after the first are too many", spec.attempts);
            wrong(
                key("attempts"),
                problem,
                "write at most 5: a service that fails so often is not helped by asking again",
            );
        }
        if spec.backoff.base > spec.backoff.max {
            let problem = format!("`base` ({}) is longer than `max` ({})", spec.backoff.base, spec.backoff.max);
            wrong(key("backoff").key("base"), problem, "make `max` the longer of the two");
        }
        if spec.max_body > MOST_BODY {
            let problem = "more than 16MiB of each request would be held".to_owned();
            wrong(key("max_body"), problem, "write at most `16MiB`");
        }
        if spec.on.is_empty() {
            let problem = "nothing is followed by a retry".to_owned();
            wrong(key("on"), problem, "name something, or write `retry: off`");
        }
        if let Some(code) = spec.on.iter().find(|on| matches!(on, On::Grpc(_)))
            && *spec.on != *RetrySpec::default().on
            && spec.methods == MethodsSpec::Idempotent
        {
            let problem =
                format!("`{code}` means nothing here: calls of gRPC are sent by POST, which is not idempotent");
            wrong(key("on"), problem, "add `methods: any` if the service may get a call twice");
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok((spec.attempts > 0).then(|| Self {
            attempts: spec.attempts,
            on: spec.on.0.as_slice().into(),
            base: spec.backoff.base.duration(),
            max: spec.backoff.max.duration(),
            per_try: spec.per_try.map(pylon_core::units::Span::duration),
            max_wait: spec.max_wait.duration(),
            any: spec.methods == MethodsSpec::Any,
            max_body: spec.max_body.as_usize(),
        }))
    }

    /// Whether another attempt is wanted after this fault, and by what name.
    pub(crate) fn after_fault(&self, fault: &Fault) -> Option<Cause> {
        let (on, cause) = match fault {
            Fault::Connect(_) | Fault::Tls(_) | Fault::Timeout(Timer::Connect, _) => (On::Connect, Cause::Connect),
            Fault::Refused(_) => (On::Refused, Cause::Refused),
            Fault::Unsent(_) | Fault::Reset { .. } => (On::Reset, Cause::Reset),
            // Those of the whole exchange end it.
            Fault::Timeout(timer @ (Timer::PerTry | Timer::FirstByte), _) => (On::Timeout, Cause::Timeout(*timer)),
            // What is too long for `limits.response_headers` would be so again.
            Fault::Head(error) if error.is_too_large() => return None,
            Fault::Head(_) | Fault::Protocol(_) => (On::Protocol, Cause::Protocol),
            _ => return None,
        };
        self.on.contains(&on).then_some(cause)
    }

    /// Whether another attempt is wanted after an answer with this head, and by what name.
    pub(crate) fn after_answer(&self, status: u16, headers: &HeaderMap, grpc: bool) -> Option<Cause> {
        if grpc
            && let Some(code) = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok())
            && self.on.contains(&On::Grpc(code))
        {
            return Some(Cause::Grpc(spec::name_of(code)));
        }
        let meets = |on: &On| matches!(on, On::Status(only) if *only == status) || *on == On::Class(status / 100);
        self.on.iter().any(meets).then_some(Cause::Status(status))
    }

    /// How long is waited before the next attempt, of which `before` retries were made: by `random`, from 0 to 1 ("full
    /// jitter"), and as long as the service asks for; none where it asks for too much.
    pub(crate) fn wait(&self, before: u8, asked: Option<Asked>, random: f64) -> Option<Duration> {
        let most = self.base.saturating_mul(1 << before.min(16)).min(self.max);
        let drawn = most.mul_f64(random.clamp(0.0, 1.0));
        match asked {
            None => Some(drawn),
            Some(Asked::Span(span)) => (span <= self.max_wait).then(|| span.max(drawn)),
            Some(Asked::NotNow) => None,
        }
    }
}

/// What a service asks for by `Retry-After` (RFC 9110 §10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// So much time.
    Span(Duration),
    /// Never to come back, or what cannot be read: in any case not now.
    NotNow,
}

impl Asked {
    /// What these fields ask for; calls of gRPC have a field of their own (gRFC A6, "server pushback"). `now` is the time since
    /// 1970, by which a date is so far away; one that is over asks for nothing more.
    pub(crate) fn by(headers: &HeaderMap, grpc: bool, now: impl FnOnce() -> Duration) -> Option<Self> {
        if let Some(pushback) = headers.get("grpc-retry-pushback-ms").filter(|_| grpc) {
            let millis = pushback.to_str().ok().and_then(|text| text.trim().parse().ok());
            return Some(millis.map_or(Self::NotNow, |millis| Self::Span(Duration::from_millis(millis))));
        }
        let text = headers.get(RETRY_AFTER)?.to_str().unwrap_or_default().trim();
        let date = || httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
        let span = match text.parse().ok() {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => date().map(|date| date.saturating_sub(now())),
        };
        Some(span.map_or(Self::NotNow, Self::Span))
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self.on.iter().map(ToString::to_string).collect();
        let (plural, any) = (if self.attempts == 1 { "y" } else { "ies" }, if self.any { ", any method" } else { "" });
        write!(f, "up to {} retr{plural} on {}{any}", self.attempts, on.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::HeadError;
    use proptest::prelude::*;
    use pylon_http1::answer::Refusal;
    use std::io;

    fn retry(json: &str) -> Result<Option<Retry>, Vec<SpecError>> {
        Retry::compile(&serde_json::from_str::<spec::ShortRetry>(json).unwrap())
    }

    fn usual() -> Retry {
        retry("2").unwrap().unwrap()
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        assert_eq!(retry(r#""off""#).unwrap(), None);
        let wrong =
            retry(r#"{"attempts": 6, "backoff": {"base": "1s"}, "max_body": "1GiB", "on": ["internal", "reset"]}"#);
        let places: Vec<_> = wrong.unwrap_err().iter().map(|error| error.at.to_string()).collect();
        assert_eq!(places, ["attempts", "backoff.base", "max_body", "on"]);
        assert!(retry(r#"{"on": "internal", "methods": "any"}"#).is_ok());
        assert_eq!(retry(r#"{"on": []}"#).unwrap_err().len(), 1);
    }

    #[test]
    fn only_what_is_listed_is_followed_by_a_retry() {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let reset = Fault::Reset { source: eof(), answered: true };
        let some = retry(r#"{"on": ["connect", "4xx", 503]}"#).unwrap().unwrap();
        assert_eq!(some.after_fault(&Fault::Connect(eof())), Some(Cause::Connect));
        assert_eq!((some.after_fault(&reset), usual().after_fault(&reset)), (None, Some(Cause::Reset)));
        let garbage = Fault::Head(HeadError::Interim);
        let too_long = Fault::Head(Refusal::TooMany.into());
        let named = retry(r#"{"on": "protocol"}"#).unwrap().unwrap();
        assert_eq!((named.after_fault(&garbage), usual().after_fault(&garbage)), (Some(Cause::Protocol), None));
        assert_eq!(named.after_fault(&too_long), None);
        let none = HeaderMap::new();
        let asked = [429, 500, 502, 503].map(|status| some.after_answer(status, &none, false));
        assert_eq!(asked, [Some(Cause::Status(429)), None, None, Some(Cause::Status(503))]);
        for (timer, again) in
            [(Timer::PerTry, true), (Timer::FirstByte, true), (Timer::Response, false), (Timer::Total, false)]
        {
            let fault = Fault::Timeout(timer, Duration::ZERO);
            assert_eq!(usual().after_fault(&fault).is_some(), again, "{timer}");
        }
    }

    #[test]
    fn a_code_of_grpc_counts_for_its_calls_alone() {
        let told = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), 14.into())]);
        assert_eq!(usual().after_answer(200, &told, true), Some(Cause::Grpc("unavailable")));
        assert_eq!(usual().after_answer(200, &told, false), None);
        let fine = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), 0.into())]);
        assert_eq!(usual().after_answer(200, &fine, true), None);
    }

    #[test]
    fn what_a_service_asks_for_is_waited_for_or_the_answer_is_passed_on() {
        let after = |text: &str| {
            let value = http::HeaderValue::from_str(text).unwrap();
            let now = || Duration::from_secs(1_445_412_479);
            usual().wait(0, Asked::by(&HeaderMap::from_iter([(RETRY_AFTER, value)]), false, now), 1.0)
        };
        assert_eq!(after("0"), Some(Duration::from_millis(25)));
        assert_eq!(after("1"), Some(Duration::from_secs(1)));
        assert_eq!(after("2"), None);
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(1)), "a second from now");
        assert_eq!(after("Wed, 21 Oct 2015 07:27:59 GMT"), Some(Duration::from_millis(25)));
        assert_eq!(after("Wednesday, 21-Oct-15 07:00:00 GMT"), Some(Duration::from_millis(25)), "it is over");
        assert_eq!((after("Wed, 21 Oct 2015 07:28:01 GMT"), after("soon"), after("-1")), (None, None, None));
        let pushback =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-retry-pushback-ms"), "-1".parse().unwrap())]);
        let asked = |grpc| Asked::by(&pushback, grpc, Duration::default);
        assert_eq!((asked(true), asked(false)), (Some(Asked::NotNow), None));
    }

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest_and_are_drawn_by_lot(before in any::<u8>(), random in 0.0_f64..=1.0) {
            let retry = usual();
            let most = Duration::from_millis(25_u64.saturating_mul(1 << before.min(20)).min(250));
            let wait = retry.wait(before, None, random).unwrap();
            prop_assert!(wait <= most);
            prop_assert_eq!(retry.wait(before, None, 1.0), Some(most));
            prop_assert_eq!(retry.wait(before, None, 0.0), Some(Duration::ZERO));
        }
    }
}
