//! Lets requests pass for which an expression holds: what lists of requirements cannot say.
//!
//! ```yaml
//! expression: 'caller.claims.tenant == request.path.split("/")[2]'
//! ```
//! ```yaml
//! expression: >-
//!   request.method in ["GET", "HEAD"] || caller.claims.roles.exists(role, role == "editor")
//! ```
//!
//! The language is the Common Expression Language ([CEL](https://cel.dev)). An expression that is false refuses the request with 403; so does
//! one that fails, such as by a claim that is not there, and one that comes to neither true nor false. The log says why. Nothing that
//! goes wrong is a yes.
//!
//! | name | what it is |
//! |---|---|
//! | `request.method`, `.host`, `.scheme`, `.id` | texts |
//! | `request.path` | the path as the client asked, in its normal form, without the query |
//! | `request.sent_path` | path and query as they will be sent |
//! | `request.headers` | texts by name in lower case; several lines of one name are joined by `, ` |
//! | `request.query` | lists of texts by name |
//! | `request.client` | the client's address, a text |
//! | `request.time` | seconds since 1970, a number |
//! | `caller` | `null` where nobody proved who is asking, else: |
//! | `caller.subject`, `.by` | texts |
//! | `caller.consumer`, `.plan` | texts or `null` |
//! | `caller.groups`, `.scopes` | lists of texts |
//! | `caller.claims`, `.metadata` | values by name |
//!
//! `has(caller.claims.tenant)` and `"x-a" in request.headers` ask whether something is there. Functions are those of CEL for texts, lists and
//! numbers; there are no dates.
//!
//! The time of an expression is bounded when it is read: by its length (4 KiB), by the number of its parts, by loops (`all`, `exists`,
//! `exists_one`, `map`, `filter`), of which four may stand in a row and none in another, and by patterns (`matches`), which must be
//! texts that stand there. A request is refused where what the expression looks at has a text longer than 8 KiB or more than 1024 values.
//! Loops and patterns are evaluated beside the workers, within 100 ms.
//!
//! An expression that looks at the caller needs a policy that finds out who that is. One that looks at nothing of a request is refused
//! when it is read: it would let everybody in, or nobody.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::percent_decode_str;
use pylon_cel::Facts;
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{CALLER_FORBIDDEN, CALLER_MISSING, OVERLOADED};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::clock::unix_now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Compiling, Policy, Step, Stop};
use crate::pool::POOL;

/// How long an expression may take beside the workers, its turn included.
const PATIENCE: Duration = Duration::from_millis(100);
/// How much a request may bring, in bytes, before even a light expression is evaluated beside the workers.
const LIGHT: usize = 4096;

/// An expression in CEL that must be true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ExpressionSpec(pub String);

impl ExpressionSpec {
    /// Whether it looks at the caller. One that cannot be read is told of elsewhere.
    pub(crate) fn names_caller(&self) -> bool {
        pylon_cel::Expression::read(&self.0).is_ok_and(|read| read.names_caller())
    }
}

/// The expression at work.
#[derive(Debug)]
pub struct Expression {
    read: Arc<pylon_cel::Expression>,
    challenges: Box<[HeaderValue]>,
}

impl Policy for Expression {
    type Spec = ExpressionSpec;
    type Memo = ();

    fn compile(spec: &Self::Spec, _: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let read = pylon_cel::Expression::read(&spec.0).map_err(|unread| {
            let error = SpecError::new(FieldPath::root(), format!("the expression cannot be used: {}", unread.problem));
            vec![unread.help.map_or(error.clone(), |help| error.help(help))]
        })?;
        Ok(Self { read: Arc::new(read), challenges: Box::default() })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        let told = Told::of(req.headers(), cx);
        if !self.read.is_heavy() && told.size() <= LIGHT {
            return Step::Done(self.verdict(self.read.holds(&told.facts()), told.caller.is_some()));
        }
        let (read, known, told) = (Arc::clone(&self.read), told.caller.is_some(), told.kept());
        Step::Wait(Box::pin(async move {
            let deadline = tokio::time::Instant::now().into_std() + PATIENCE;
            match POOL.run(deadline, move || read.holds(&told.facts())).await {
                Ok(said) => self.verdict(said, known),
                Err(not_done) => Err(OVERLOADED.privately(format!("the expression: {not_done}")).into()),
            }
        }))
    }
}

impl Expression {
    /// What stands in `WWW-Authenticate` where nobody has proved who is asking.
    pub(crate) fn challenge_by(&mut self, challenges: Vec<HeaderValue>) {
        self.challenges = challenges.into();
    }

    fn verdict(&self, said: Result<bool, String>, known: bool) -> Result<(), Stop> {
        let why = match said {
            Ok(true) => return Ok(()),
            Ok(false) => "the expression is false".to_owned(),
            Err(why) => format!("the expression failed: {why}"),
        };
        if known || !self.read.names_caller() {
            return Err(CALLER_FORBIDDEN.privately(why).into());
        }
        let no = CALLER_MISSING.privately(why);
        Err(self.challenges.iter().fold(no, |no, challenge| no.with_header(WWW_AUTHENTICATE, challenge.clone())).into())
    }
}

/// What is known of a request: borrowed where it is looked at on the worker, owned where it goes to another thread.
#[derive(Debug)]
struct Told<'a> {
    method: Cow<'a, Method>,
    path: Cow<'a, PathAndQuery>,
    sent_path: Cow<'a, PathAndQuery>,
    host: Cow<'a, str>,
    scheme: Scheme,
    headers: Cow<'a, HeaderMap>,
    client: std::net::IpAddr,
    id: Cow<'a, HeaderValue>,
    caller: Option<Cow<'a, Arc<Caller>>>,
}

impl<'a> Told<'a> {
    fn of(headers: &'a HeaderMap, cx: &'a Exchange) -> Self {
        Self {
            method: Cow::Borrowed(&cx.method),
            path: Cow::Borrowed(&cx.path),
            sent_path: Cow::Borrowed(cx.sent_path()),
            host: Cow::Borrowed(cx.host.as_deref().unwrap_or_default()),
            scheme: cx.scheme,
            headers: Cow::Borrowed(headers),
            client: cx.client,
            id: Cow::Borrowed(&cx.request_id),
            caller: cx.caller.as_ref().map(Cow::Borrowed),
        }
    }

    /// A copy that can be handed to another thread.
    fn kept(self) -> Told<'static> {
        Told {
            method: Cow::Owned(self.method.into_owned()),
            path: Cow::Owned(self.path.into_owned()),
            sent_path: Cow::Owned(self.sent_path.into_owned()),
            host: Cow::Owned(self.host.into_owned()),
            scheme: self.scheme,
            headers: Cow::Owned(self.headers.into_owned()),
            client: self.client,
            id: Cow::Owned(self.id.into_owned()),
            caller: self.caller.map(|caller| Cow::Owned(caller.into_owned())),
        }
    }

    /// Roughly how much there is to be told, in bytes.
    fn size(&self) -> usize {
        let lines: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len())).sum();
        // A claim may hold others.
        let claims = self.caller.as_ref().map_or(0, |caller| caller.claims.len().saturating_mul(64));
        lines.saturating_add(self.path.as_str().len()).saturating_add(claims)
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            method: self.method.as_str(),
            path: self.path.path(),
            sent_path: self.sent_path.as_str(),
            query: self.path.query().unwrap_or_default(),
            host: &self.host,
            scheme: if self.scheme == Scheme::Https { "https" } else { "http" },
            headers: &self.headers,
            client: self.client,
            time: unix_now().as_secs(),
            id: self.id.to_str().unwrap_or_default(),
            caller: self.caller.as_ref().map(|caller| caller.as_ref().as_ref()),
            decode: |text| percent_decode_str(text).decode_utf8_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Seen, compile, now};

    fn judge(source: &str, seen: &Seen, caller: Option<Caller>) -> Result<(), &'static str> {
        let policy: Expression = compile(&serde_json::to_string(source).unwrap()).unwrap();
        let (mut req, mut cx) = seen.start();
        cx.caller = caller.map(Arc::new);
        now(policy.on_request(&mut req, &mut cx)).map_err(|stop| match stop {
            Stop::Reject(no) => {
                assert!(no.detail.is_none() && no.note.is_some());
                no.reason.code
            }
            Stop::Reply(reply) => panic!("{reply:?}"),
        })
    }

    fn ann() -> Caller {
        let mut ann = Caller { by: "jwt", subject: "ann".into(), ..Caller::default() };
        ann.claims.insert("tenant".into(), "acme".into());
        ann
    }

    #[test]
    fn a_request_passes_where_the_expression_holds() {
        let tenant = r#"caller.claims.tenant == request.path.split("/")[2]"#;
        assert_eq!(judge(tenant, &Seen::get("/t/acme/x"), Some(ann())), Ok(()));
        assert_eq!(judge(tenant, &Seen::get("/t/other"), Some(ann())), Err("caller.forbidden"));
        assert_eq!(judge(tenant, &Seen::get("/t"), Some(ann())), Err("caller.forbidden"));
        assert_eq!(judge(tenant, &Seen::get("/t/acme"), Some(Caller::default())), Err("caller.forbidden"));
        assert_eq!(judge(tenant, &Seen::get("/t/acme"), None), Err("caller.missing"));
        let query = r#"request.query["a b"] == ["1 2"] && request.method == "GET" && request.headers["x-a"] == "1""#;
        assert_eq!(judge(query, &Seen::get("/?a%20b=1%202").header("x-a", "1"), None), Ok(()));
        assert_eq!(judge(query, &Seen::get("/?a%20b=1").header("x-a", "1"), None), Err("caller.forbidden"));
        assert_eq!(judge("request.path", &Seen::get("/"), None), Err("caller.forbidden"));
        let optional = r#"caller == null || caller.subject == "ann""#;
        assert_eq!(
            (judge(optional, &Seen::get("/"), None), judge(optional, &Seen::get("/"), Some(ann()))),
            (Ok(()), Ok(()))
        );
    }

    #[tokio::test]
    async fn what_may_take_long_is_evaluated_elsewhere() {
        let policy: Expression = compile(r#""caller.claims.roles.exists(r, r == 'editor')""#).unwrap();
        let mut editor = ann();
        editor.claims.insert("roles".into(), serde_json::json!(["a", "editor"]));
        for (caller, passes) in [(editor, true), (ann(), false)] {
            let (mut req, mut cx) = Seen::get("/").start();
            cx.caller = Some(Arc::new(caller));
            let Step::Wait(waiting) = policy.on_request(&mut req, &mut cx) else {
                panic!("it is decided on the worker")
            };
            assert_eq!(waiting.await.is_ok(), passes);
        }
        let light: Expression = compile(r#""request.path == '/' && size(request.headers.x) == 4096""#).unwrap();
        let (mut req, mut cx) = Seen::get("/").header("x", &"x".repeat(LIGHT)).start();
        let Step::Wait(waiting) = light.on_request(&mut req, &mut cx) else { panic!("it is decided on the worker") };
        assert!(waiting.await.is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_is_wrong() {
        for (source, wrong) in [
            ("\"\"", "cannot be used"),
            ("\"request.pth == '/'\"", "there is no `pth` there"),
            ("\"claims.tenant == 'a'\"", "nothing is named `claims`"),
            ("\"request.path == \"", "cannot be used"),
        ] {
            let error = compile::<Expression>(source).unwrap_err();
            assert!(error.contains(wrong), "{source}: {error}");
        }
        assert!(compile::<Expression>("true").is_err() && compile::<Expression>("null").is_err());
    }
}
