//! Header lines made of what is written, and made again when a file that a secret stands in has changed.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use pylon_core::fields::{self, BadName};
use pylon_core::kept;
use pylon_core::names::UpstreamName;
use pylon_core::secret::{Reveal, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::timer::sleep;

use super::spec::{BasicSpec, OutboundSpec, ValueSpec};
use crate::oauth;

/// How often files are read. What is new counts once it was the same twice.
const LOOK: Duration = Duration::from_millis(500);

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lines {
    pub(super) set: Vec<(HeaderName, HeaderValue)>,
    pub(super) add: Vec<(HeaderName, HeaderValue)>,
    /// `Authorization`, where it is not that of a token which comes and goes.
    pub(super) credential: Option<HeaderValue>,
}

impl Lines {
    /// The same in memory of its own, whose counts nobody else writes.
    pub(super) fn copied(&self) -> Self {
        let copy = |lines: &[(HeaderName, HeaderValue)]| {
            lines.iter().map(|(name, value)| (name.clone(), own(value))).collect::<Vec<_>>()
        };
        Self { set: copy(&self.set), add: copy(&self.add), credential: self.credential.as_ref().map(own) }
    }
}

/// The same value in memory of its own.
pub(super) fn own(value: &HeaderValue) -> HeaderValue {
    // The bytes come from a valid value.
    let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { return value.clone() };
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// The lines as they are now.
#[derive(Debug)]
pub(super) struct Values {
    recipe: Recipe,
    lines: ArcSwap<Lines>,
    /// Rises with each change.
    generation: AtomicU64,
    /// Why the files cannot be used that are there now.
    error: Mutex<Option<String>>,
}

/// How lines are made. Reads disks.
#[derive(Debug, Clone)]
struct Recipe {
    spec: OutboundSpec,
    secrets: Reveal,
}

impl Values {
    pub(super) fn new(spec: &OutboundSpec, secrets: Reveal) -> Result<Self, Vec<SpecError>> {
        let recipe = Recipe { spec: spec.clone(), secrets };
        let lines = ArcSwap::from_pointee(recipe.lines()?);
        Ok(Self { recipe, lines, generation: AtomicU64::new(1), error: Mutex::default() })
    }

    /// Rises with each change.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    pub(super) fn copied(&self) -> Lines {
        self.lines.load().copied()
    }

    /// Why the files cannot be used that are there now.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }

    /// Whether a secret stands in a file.
    pub(super) fn are_in_files(&self) -> bool {
        let OutboundSpec { headers, basic, bearer, oauth2: _ } = &self.recipe.spec;
        let values = headers.set.values().chain(headers.add.values().flat_map(|values| values.iter()));
        let written = values.filter_map(|value| match value {
            ValueSpec::Secret(secret) => Some(secret),
            ValueSpec::Plain(_) => None,
        });
        let own = basic.iter().map(|basic| &basic.password).chain(bearer);
        written.chain(own).any(|secret| matches!(secret, SecretSpec::File(_)))
    }

    /// Reads the files again and again.
    pub(super) async fn look_after(self: Arc<Self>, upstream: UpstreamName) {
        let mut before: Option<Lines> = None;
        loop {
            sleep(LOOK).await;
            let recipe = self.recipe.clone();
            // Files may stand on a disk that is slow.
            let Ok(read) = tokio::task::spawn_blocking(move || recipe.lines()).await else { return };
            match read {
                Ok(lines) if **self.lines.load() == lines => {
                    *self.error.lock() = None;
                    before = None;
                }
                Ok(lines) if before.as_ref() == Some(&lines) => {
                    self.lines.store(Arc::new(lines));
                    self.generation.fetch_add(1, Release);
                    *self.error.lock() = None;
                    before = None;
                    tracing::info!(upstream = upstream.as_str(), "a renewed secret of `outbound` is in force");
                }
                Ok(lines) => before = Some(lines),
                Err(errors) => {
                    before = None;
                    let trouble = errors.into_iter().map(|error| error.problem).collect::<Vec<_>>().join("; ");
                    let known = self.error.lock().replace(trouble.clone());
                    if known.as_ref() != Some(&trouble) {
                        tracing::warn!(upstream = upstream.as_str(), %trouble, "the secret of `outbound` before stays in force");
                    }
                }
            }
        }
    }
}

impl Recipe {
    /// The lines as they would be sent now, or all that is wrong, from the key `outbound` down.
    fn lines(&self) -> Result<Lines, Vec<SpecError>> {
        let mut errors = Vec::new();
        let (mut lines, headers) = (Lines::default(), FieldPath::root().key("headers"));
        for (name, value) in &self.spec.headers.set {
            let at = headers.clone().key("set").key(name);
            lines.set.extend(self.line(name, value, &at, &mut errors));
        }
        for (name, values) in &self.spec.headers.add {
            let at = headers.clone().key("add").key(name);
            for value in values.iter() {
                lines.add.extend(self.line(name, value, &at, &mut errors));
            }
        }
        let credential = match (&self.spec.basic, &self.spec.bearer) {
            (Some(spec), _) => Some(self.basic(spec).map_err(|error| error.below(&FieldPath::root().key("basic")))),
            (None, Some(token)) => {
                Some(self.bearer(token).map_err(|error| error.below(&FieldPath::root().key("bearer"))))
            }
            (None, None) => None,
        };
        match credential.transpose() {
            Ok(credential) => lines.credential = credential,
            Err(error) => errors.push(error),
        }
        if errors.is_empty() { Ok(lines) } else { Err(errors) }
    }

    fn line(
        &self,
        name: &str,
        value: &ValueSpec,
        at: &FieldPath,
        errors: &mut Vec<SpecError>,
    ) -> Option<(HeaderName, HeaderValue)> {
        let name = name_of(name, at).map_err(|error| errors.push(error)).ok()?;
        let value = match value {
            ValueSpec::Plain(text) => HeaderValue::from_str(text).map_err(|_| not_sendable("this value")),
            ValueSpec::Secret(secret) => (self.secrets)(secret).and_then(|secret| sensitive(secret.expose())),
        };
        let value = value.map_err(|error| errors.push(error.below(at))).ok()?;
        Some((name, value))
    }

    fn basic(&self, spec: &BasicSpec) -> Result<HeaderValue, SpecError> {
        let at = FieldPath::root();
        // RFC 7617 §2.
        if spec.user.contains(':') || spec.user.chars().any(char::is_control) {
            let error = SpecError::new(at.key("user"), format!("`{}` is no user name", spec.user));
            return Err(error.help("it has neither a colon nor control characters"));
        }
        let password = (self.secrets)(&spec.password).map_err(|error| error.below(&at.key("password")))?;
        oauth::credentials(spec.user.as_bytes(), password.expose()).ok_or_else(|| not_sendable("this secret"))
    }

    fn bearer(&self, token: &SecretSpec) -> Result<HeaderValue, SpecError> {
        oauth::bearer((self.secrets)(token)?.expose())
            .ok_or_else(|| SpecError::new(FieldPath::root(), "this is no token (RFC 6750 §2.1)"))
    }
}

/// A header that may be written on the way to a service.
pub(super) fn name_of(text: &str, at: &FieldPath) -> Result<HeaderName, SpecError> {
    match fields::parse(text) {
        Ok(name) => Ok(kept::name(&name)),
        Err(BadName { problem, help }) => Err(SpecError::new(at.clone(), problem).help(help)),
    }
}

fn sensitive(bytes: &[u8]) -> Result<HeaderValue, SpecError> {
    oauth::sensitive(bytes).ok_or_else(|| not_sendable("this secret"))
}

fn not_sendable(what: &str) -> SpecError {
    SpecError::new(FieldPath::root(), format!("{what} cannot stand in a header"))
        .help("a value of a header is one line, without control characters")
}

/// The name of `Authorization`.
pub(super) const AUTHORIZATION: HeaderName = header::AUTHORIZATION;
