//! Where the keys of an issuer are: at a URL, in a file, or where the issuer itself says (OpenID Connect Discovery 1.0 §4).

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_net::tls::spec::UpstreamTlsSpec;
use pylon_upstream::fetch::{Ask, Remote, Whole};
use serde_json::{Map, Value};

use super::json;
use super::key::Keys;
use super::renewal::freshness;

/// The largest set, in bytes.
const LARGEST: usize = 1024 * 1024;
/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long what an issuer says of the place of its keys is believed.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Where keys are.
#[derive(Debug)]
pub(crate) struct Source {
    place: Place,
    tls: Option<UpstreamTlsSpec>,
    resolver: Resolver,
}

#[derive(Debug)]
enum Place {
    Url(Target),
    File(PathBuf),
    /// The issuer, and where it tells of itself.
    Told(String, Target),
}

/// One thing to be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    remote: Remote,
    /// With the query, if there is one.
    path: String,
}

/// What an issuer has told of itself, and when.
#[derive(Debug, Default)]
pub(crate) struct Told(Option<Word>);

#[derive(Debug)]
struct Word {
    keys: Target,
    /// All that it told.
    members: Arc<Map<String, Value>>,
    at: Instant,
}

impl Told {
    /// All that it told (OpenID Connect Discovery 1.0 §3).
    pub(crate) fn members(&self) -> Option<Arc<Map<String, Value>>> {
        self.0.as_ref().map(|word| Arc::clone(&word.members))
    }
}

impl Source {
    /// Where the keys of `issuer` are, at `jwks` where that is written, and those that are at hand. Errors begin at the key `jwt`.
    pub(crate) fn new(
        issuer: &str,
        jwks: Option<&str>,
        tls: Option<&UpstreamTlsSpec>,
        resolver: &Resolver,
    ) -> Result<(Self, Option<Keys>), Vec<SpecError>> {
        let root = FieldPath::root;
        let place = match jwks {
            Some(text) => match text.strip_prefix("file:") {
                Some(path) => Place::File(path.into()),
                None => Place::Url(Target::new(text, &root().key("jwks"), tls, resolver)?),
            },
            None => {
                let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                Place::Told(issuer.to_owned(), Target::new(&url, &root().key("issuer"), tls, resolver)?)
            }
        };
        if tls.is_some() && matches!(place, Place::File(_)) {
            let error = SpecError::new(root().key("tls"), "`tls` is written, but the keys are in a file");
            return Err(vec![error.help("take it out")]);
        }
        let source = Self { place, tls: tls.cloned(), resolver: resolver.clone() };
        let Place::File(path) = &source.place else { return Ok((source, None)) };
        // A file that is wrong now is a mistake; one that goes wrong later leaves the keys before in force.
        let keys = read(path).map_err(|problem| {
            let error = SpecError::new(root().key("jwks"), format!("{}: {problem}", path.display()));
            vec![error.help("write a set of keys there (RFC 7517 §5)")]
        })?;
        Ok((source, Some(keys)))
    }

    /// What it is, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.place {
            Place::Url(target) | Place::Told(_, target) => target.shown(),
            Place::File(path) => path.display().to_string(),
        }
    }

    /// Fetches the keys, and says for how long they are fresh.
    pub(crate) async fn fetch(&self, told: &mut Told, deadline: Instant) -> Result<(Keys, Duration), String> {
        let answer = match &self.place {
            Place::File(path) => {
                let path = path.clone();
                // Files may stand on a disk that is slow.
                let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(|_| "the gateway ends")?;
                return Ok((read?, LOOK));
            }
            Place::Url(target) => target.get(deadline).await?,
            Place::Told(issuer, target) => {
                let asked = tokio::time::Instant::now().into_std();
                let known = told.0.take().filter(|word| asked.saturating_duration_since(word.at) < BELIEVED);
                let word = match known {
                    Some(known) => known,
                    None => {
                        let (keys, members) = self.ask(issuer, target, deadline).await?;
                        Word { keys, members: Arc::new(members), at: asked }
                    }
                };
                let answer = word.keys.get(deadline).await?;
                // It is asked again where its word led nowhere.
                told.0 = Some(word);
                answer
            }
        };
        let cache_control = answer.headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
        Ok((Keys::read(&answer.body)?, freshness(cache_control)))
    }

    /// Asks an issuer where its keys are, and what else it tells.
    async fn ask(
        &self,
        issuer: &str,
        target: &Target,
        deadline: Instant,
    ) -> Result<(Target, Map<String, Value>), String> {
        let answer = target.get(deadline).await?;
        let (url, members) = jwks_uri(issuer, &answer.body)?;
        Ok((self.target(&url, "jwks_uri")?, members))
    }

    /// What is at a URL that the issuer tells under this name.
    pub(crate) fn target(&self, url: &str, name: &str) -> Result<Target, String> {
        let at = FieldPath::root();
        let tls =
            self.tls.as_ref().filter(|_| url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")));
        let first = |errors: Vec<SpecError>| errors.into_iter().next().map(|error| error.problem).unwrap_or_default();
        Target::new(url, &at, tls, &self.resolver).map_err(|errors| format!("its `{name}`: {}", first(errors)))
    }
}

impl Target {
    pub(crate) fn new(
        url: &str,
        at: &FieldPath,
        tls: Option<&UpstreamTlsSpec>,
        resolver: &Resolver,
    ) -> Result<Self, Vec<SpecError>> {
        let authority = url.find("://").map_or(0, |colon| colon.saturating_add(3));
        let path = url.get(authority..).and_then(|rest| rest.find(['/', '?', '#']));
        let (base, path) = url.split_at_checked(path.map_or(url.len(), |path| authority + path)).unwrap_or((url, ""));
        let remote = Remote::new(base, at, tls, resolver)?;
        let error = |problem: &str, help: &str| vec![SpecError::new(at.clone(), problem).help(help)];
        if !remote.is_private() {
            let problem = "who stands between could put keys of their own in place";
            return Err(error(problem, "write `https://`, or an address of this machine"));
        }
        let valid = path.is_empty() || path.starts_with(['/', '?']);
        if !valid || path.contains('#') || http::uri::PathAndQuery::try_from(path).is_err() && !path.is_empty() {
            return Err(error("this is no URL", "write it as `https://host/path`"));
        }
        let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        Ok(Self { remote, path })
    }

    /// What it is, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{}{}", self.remote.shown(), self.path.split('?').next().unwrap_or_default())
    }

    async fn get(&self, deadline: Instant) -> Result<Whole, String> {
        let ask = Ask::get("").with(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        let answer = self.ask(ask, LARGEST, deadline).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("`{}` answered {}", self.path, answer.status.as_u16()));
        }
        Ok(answer)
    }

    /// Asks this of it, and reads an answer of at most `cap` bytes.
    pub(crate) async fn ask(&self, ask: Ask, cap: usize, deadline: Instant) -> Result<Whole, String> {
        let ask = Ask { path: self.path.clone(), ..ask };
        self.remote.fetch(&ask, cap, deadline).await.map_err(|error| error.to_string())
    }
}

/// Where the keys of `issuer` are, by its own word, and all that it tells. It must be the one that was asked (§4.3).
fn jwks_uri(issuer: &str, body: &[u8]) -> Result<(String, Map<String, Value>), String> {
    let told = json::object(body).ok_or("what it tells of itself is no JSON object whose members stand once")?;
    if told.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(format!("what it tells of itself is not of the issuer `{issuer}`"));
    }
    let url = told.get("jwks_uri").and_then(Value::as_str).map(str::to_owned);
    let url = url.ok_or_else(|| "it does not tell where its keys are (`jwks_uri`)".to_owned())?;
    Ok((url, told))
}

fn read(path: &PathBuf) -> Result<Keys, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > LARGEST {
        return Err("the file is larger than 1 MiB".to_owned());
    }
    Keys::read(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(issuer: &str, jwks: Option<&str>) -> Result<String, String> {
        let resolver = Resolver::new(&["127.0.0.1:53".parse().unwrap()]).unwrap();
        let source = Source::new(issuer, jwks, None, &resolver);
        source.map(|(source, _)| source.shown()).map_err(|errors| format!("{}: {}", errors[0].at, errors[0].problem))
    }

    #[test]
    fn keys_are_where_it_is_written_or_where_the_issuer_says() {
        for (issuer, jwks, shown) in [
            ("https://id.test", None, "id.test:443/.well-known/openid-configuration"),
            ("https://id.test/", None, "id.test:443/.well-known/openid-configuration"),
            ("https://id.test/realms/a", None, "id.test:443/realms/a/.well-known/openid-configuration"),
            ("x", Some("https://id.test/keys?p=1"), "id.test:443/keys"),
            ("x", Some("http://127.0.0.1:81/keys"), "127.0.0.1:81/keys"),
            ("x", Some("http://localhost:81?p=1"), "localhost:81/"),
        ] {
            assert_eq!(source(issuer, jwks).as_deref(), Ok(shown));
        }
    }

    #[test]
    fn keys_that_others_could_put_in_place_are_refused() {
        for (issuer, jwks, at) in [
            ("http://id.test", None, "issuer: who stands between"),
            ("id.test", None, "issuer: "),
            ("", None, "issuer: "),
            ("x", Some("http://id.test/keys"), "jwks: who stands between"),
            ("x", Some("http://127.0.0.1.id.test/keys"), "jwks: who stands between"),
            ("x", Some("https://id.test/keys#a"), "jwks: this is no URL"),
            ("x", Some("https://id.test/a b"), "jwks: this is no URL"),
            ("x", Some("ftp://id.test/keys"), "jwks: "),
            ("x", Some("/etc/keys.json"), "jwks: "),
            ("x", Some("file:/does/not/exist.json"), "jwks: /does/not/exist.json: "),
        ] {
            let error = source(issuer, jwks).unwrap_err();
            assert!(error.starts_with(at), "{issuer} {jwks:?}: {error}");
        }
    }

    #[test]
    fn an_issuer_speaks_for_itself_alone() {
        let told = |body: &str| jwks_uri("https://id.test", body.as_bytes()).map(|(url, _)| url);
        let good = r#"{"issuer":"https://id.test","jwks_uri":"https://keys.test/a"}"#;
        assert_eq!(told(good).as_deref(), Ok("https://keys.test/a"));
        for bad in [
            r#"{"issuer":"https://id.test/","jwks_uri":"https://keys.test/a"}"#,
            r#"{"jwks_uri":"https://keys.test/a"}"#,
            r#"{"issuer":"https://id.test"}"#,
            r#"{"issuer":"https://id.test","jwks_uri":"https://a.test","jwks_uri":"https://b.test"}"#,
            "<html>",
        ] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
