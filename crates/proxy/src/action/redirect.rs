//! Sends the client elsewhere: `redirect: https://new.example.com/users/{id}`.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode, Uri};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::exchange::Exchange;
use pylon_core::rejection::{ROUTE_REWRITE, Rejection};
use pylon_core::short::FromScalar;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_route::matching::RouteMatch;
use pylon_route::rewrite::Rewrite;
use pylon_route::spec::RewriteSpec;
use pylon_route::table::Found;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the client is sent. Short: the place, `redirect: /users/{id}`. The query goes along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// A path, or a whole URL; captures of the match by name. Required. Example: `https://new.example.com/users/{id}`.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 307: the method stays and nothing is remembered. Example: `308`.
    #[serde(default = "temporary")]
    pub status: u16,
}

fn temporary() -> u16 {
    307
}

impl FromScalar for RedirectSpec {
    const EXPECTING: &'static str = "a place such as `/users/{id}`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { to: text.to_owned(), status: temporary() })
    }
}

/// A compiled `redirect`.
#[derive(Debug)]
pub struct Redirect {
    status: StatusCode,
    /// `https://new.example.com`, or nothing.
    site: String,
    path: Rewrite,
}

impl Redirect {
    /// Compiles the spec for the route whose captures it may name.
    pub fn compile(spec: &RedirectSpec, route: &RouteMatch) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let status = StatusCode::from_u16(spec.status)
            .ok()
            .filter(|status| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            let error = SpecError::new(
                FieldPath::root().key("status"),
                format!("{} is not the status of a redirect", spec.status),
            );
            errors.push(error.help("write 301, 302, 303, 307 or 308"));
        }
        let at = FieldPath::root().key("to");
        let (site, path) = match split_site(&spec.to) {
            Ok(parts) => parts,
            Err(problem) => {
                errors.push(
                    SpecError::new(at, problem)
                        .help("write a path such as `/users/{id}` or a URL such as `https://new.example.com/`"),
                );
                return Err(errors);
            }
        };
        let rewrite = RewriteSpec { path: Some(path.to_owned()), ..RewriteSpec::default() };
        match (Rewrite::compile(&rewrite, route), status) {
            (Ok(path), Some(status)) if errors.is_empty() => return Ok(Self { status, site: site.to_owned(), path }),
            (Err(more), _) => errors.extend(more.into_iter().map(|error| SpecError { at: at.clone(), ..error })),
            _ => {}
        }
        Err(errors)
    }

    pub(crate) fn answer(&self, found: &Found, cx: &Exchange) -> Result<Response, Rejection> {
        let refuse = |error: &dyn std::fmt::Display| ROUTE_REWRITE.because(error.to_string());
        let path = self.path.apply(cx.path.path(), cx.path.query(), &found.captures).map_err(|error| refuse(&error))?;
        let place = HeaderValue::try_from(format!("{}{path}", self.site)).map_err(|error| refuse(&error))?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, place);
        Ok(response)
    }
}

/// `https://new.example.com/users/{id}` is a site and a path.
fn split_site(to: &str) -> Result<(&str, &str), String> {
    if to.starts_with("//") {
        return Err(format!("`{to}` begins with two slashes, which is another site in disguise"));
    }
    if to.starts_with('/') {
        return Ok(("", to));
    }
    let behind_scheme = ["http://", "https://"].iter().find_map(|scheme| to.strip_prefix(scheme).map(|_| scheme.len()));
    let start = behind_scheme.ok_or_else(|| format!("`{to}` is neither a path nor a URL of http or https"))?;
    let rest = to.get(start..).unwrap_or_default();
    let end = start + rest.find('/').unwrap_or(rest.len());
    let (site, path) = to.split_at(end);
    if site.parse::<Uri>().is_err() {
        return Err(format!("`{site}` is not the address of a site"));
    }
    Ok((site, if path.is_empty() { "/" } else { path }))
}
