//! The key `telemetry` of a document: the access log, and what the gateway tells of itself.

use std::path::PathBuf;

use http::HeaderName;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The header that carries the code of a refusal when `reason_header` is on.
pub const REASON_HEADER: &str = "x-pylon-reason";

/// How many headers the log may be asked to tell.
const MOST_HEADERS: usize = 16;

/// Headers that hold credentials by their definition.
const CREDENTIALS: [HeaderName; 4] =
    [http::header::AUTHORIZATION, http::header::PROXY_AUTHORIZATION, http::header::COOKIE, http::header::SET_COOKIE];

/// What the gateway tells of its work. Metrics are always on: they stand at `/metrics` of the `admin` address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySpec {
    /// Where the access log goes, one JSON object per line and exchange: `stdout`, `off`, or the path of a file.
    /// Default: `stdout`. Example: `access_log: /var/log/pylon/access.log`.
    pub access_log: Short<AccessLogSpec>,
    /// Whether answers that the gateway itself makes carry the code of the refusal in the header `x-pylon-reason`, and
    /// those of a fallback that of the failure in `x-pylon-fallback`. Headers of these names from an upstream are removed. Default: `false`. Example: `reason_header: true`.
    pub reason_header: bool,
    /// Whether the last 64 exchanges of each worker are kept in memory for the admin API and the live view.
    /// Default: `true`. Example: `recent: false`.
    pub recent: bool,
}

impl Default for TelemetrySpec {
    fn default() -> Self {
        Self { access_log: Short::default(), reason_header: false, recent: true }
    }
}

/// The access log in full. Written short, as `stdout`, `off` or a path, the other keys have their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogSpec {
    /// Whether there is an access log. Default: `true`. Example: `enabled: false`.
    pub enabled: bool,
    /// The file that lines are appended to. It is created with mode 0640 if it is missing; its folder must exist. A
    /// relative path starts at the working directory of the process. Default: none, lines go to standard output.
    /// Example: `file: /var/log/pylon/access.log`.
    pub file: Option<PathBuf>,
    /// Parameters of the query whose values are replaced by `***`, in any case and however they are percent-encoded.
    /// Default: `[access_token, refresh_token, id_token, token, api_key, apikey, client_secret, password]`.
    /// Example: `redact_query: [token, signature]`.
    pub redact_query: Vec<String>,
    /// Headers of the request that are told under `headers`, at most 16; where a header stands several times, the first.
    /// Headers that hold credentials are refused. Default: none. Example: `headers: [user-agent, referer]`.
    pub headers: Vec<String>,
}

impl Default for AccessLogSpec {
    fn default() -> Self {
        let redact =
            ["access_token", "refresh_token", "id_token", "token", "api_key", "apikey", "client_secret", "password"];
        Self { enabled: true, file: None, redact_query: redact.map(String::from).into(), headers: Vec::new() }
    }
}

impl FromScalar for AccessLogSpec {
    const EXPECTING: &'static str = "`stdout`, `off` or the path of a file";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "stdout" => Ok(Self::default()),
            "off" => Ok(Self { enabled: false, ..Self::default() }),
            path if path.contains('/') => Ok(Self { file: Some(path.into()), ..Self::default() }),
            other => Err(format!("`{other}` is neither `stdout` nor `off`; if it is a file, write `./{other}`")),
        }
    }
}

/// A [`TelemetrySpec`] that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where and how exchanges are logged.
    pub access_log: LogPlan,
    /// Whether refusals are told in [`REASON_HEADER`].
    pub reason_header: bool,
    /// Whether the last exchanges are kept.
    pub recent: bool,
}

/// An [`AccessLogSpec`] that has been checked. No file is open yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlan {
    /// Where lines go.
    pub to: LogTarget,
    /// Parameters of the query that are blotted out, in lower case.
    pub(crate) redact: Box<[Box<str>]>,
    /// Headers that are told.
    pub(crate) headers: Box<[HeaderName]>,
}

/// Where lines of the access log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere: no line is made.
    Off,
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

impl TelemetrySpec {
    /// Checks the spec and opens nothing. Errors have their place from the key `telemetry` down.
    pub fn compile(&self) -> Result<Telemetry, Vec<SpecError>> {
        let base = FieldPath::root().key("access_log");
        let access_log = self
            .access_log
            .compile()
            .map_err(|errors| errors.into_iter().map(|error| error.below(&base)).collect::<Vec<_>>())?;
        Ok(Telemetry { access_log, reason_header: self.reason_header, recent: self.recent })
    }
}

impl AccessLogSpec {
    /// Checks the spec and opens nothing. Errors have their place from the key `access_log` down.
    pub fn compile(&self) -> Result<LogPlan, Vec<SpecError>> {
        let mut errors = Vec::new();
        let mut headers = Vec::new();
        for (i, text) in self.headers.iter().enumerate() {
            let at = FieldPath::root().key("headers").index(i);
            match HeaderName::from_bytes(text.as_bytes()) {
                Ok(name) if CREDENTIALS.contains(&name) => {
                    let problem = format!("`{text}` holds credentials and is never logged");
                    errors.push(
                        SpecError::new(at, problem).help("remove it; `route`, `client` and `id` tell exchanges apart"),
                    );
                }
                Ok(name) if headers.contains(&name) => {
                    errors.push(SpecError::new(at, format!("`{text}` is listed twice")).help("remove one of the two"));
                }
                Ok(name) => headers.push(name),
                Err(_) => errors.push(SpecError::new(at, format!("`{text}` is not the name of a header"))),
            }
        }
        if headers.len() > MOST_HEADERS {
            let problem = format!("{} headers are more than a line may tell", headers.len());
            errors.push(
                SpecError::new(FieldPath::root().key("headers"), problem).help(format!("list {MOST_HEADERS} at most")),
            );
        }
        for (i, name) in self.redact_query.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            let at = FieldPath::root().key("redact_query").index(i);
            errors.push(SpecError::new(at, format!("`{name}` is not the name of a parameter")));
        }
        if self.file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            errors.push(
                SpecError::new(FieldPath::root().key("file"), "the path is empty")
                    .help("leave `file` out for standard output"),
            );
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let to = match &self.file {
            _ if !self.enabled => LogTarget::Off,
            Some(file) => LogTarget::File(file.clone()),
            None => LogTarget::Stdout,
        };
        let redact = self.redact_query.iter().map(|name| name.to_ascii_lowercase().into()).collect();
        Ok(LogPlan { to, redact, headers: headers.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TelemetrySpec, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn target(json: &str) -> LogTarget {
        read(json).unwrap().compile().unwrap().access_log.to
    }

    #[test]
    fn the_log_goes_to_standard_output_unless_told_otherwise() {
        assert_eq!(target("{}"), LogTarget::Stdout);
        assert_eq!(target(r#"{ "access_log": "stdout" }"#), LogTarget::Stdout);
        assert_eq!(target(r#"{ "access_log": "off" }"#), LogTarget::Off);
        assert_eq!(target(r#"{ "access_log": { "enabled": false } }"#), LogTarget::Off);
        assert_eq!(target(r#"{ "access_log": "./a.log" }"#), LogTarget::File("./a.log".into()));
        assert_eq!(target(r#"{ "access_log": { "file": "/a.log" } }"#), LogTarget::File("/a.log".into()));
    }

    #[test]
    fn a_misspelt_target_is_not_taken_for_a_file() {
        let error = read(r#"{ "access_log": "stdot" }"#).unwrap_err();
        assert!(error.contains("`stdot` is neither `stdout` nor `off`; if it is a file, write `./stdot`"), "{error}");
        assert!(read(r#"{ "acces_log": "off" }"#).is_err());
        assert!(read(r#"{ "access_log": { "fil": "/a.log" } }"#).is_err());
    }

    #[test]
    fn every_wrong_header_is_told_with_its_place() {
        let spec = r#"{ "access_log": { "headers": ["Authorization", "a b", "user-agent", "User-Agent"], "redact_query": [""] } }"#;
        let errors = read(spec).unwrap().compile().unwrap_err();
        let told: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.at, e.problem)).collect();
        assert_eq!(
            told,
            [
                "access_log.headers[0]: `Authorization` holds credentials and is never logged",
                "access_log.headers[1]: `a b` is not the name of a header",
                "access_log.headers[3]: `User-Agent` is listed twice",
                "access_log.redact_query[0]: `` is not the name of a parameter",
            ]
        );
    }

    #[test]
    fn what_is_written_out_reads_back_the_same() {
        for json in
            ["{}", r#"{ "access_log": "off" }"#, r#"{ "access_log": "/x", "reason_header": true, "recent": false }"#]
        {
            let spec = read(json).unwrap();
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = serde_json::to_string(&schemars::schema_for!(TelemetrySpec)).unwrap();
        for key in ["access_log", "reason_header", "recent", "enabled", "file", "redact_query", "headers"] {
            assert!(schema.contains(&format!("\"{key}\"")), "{key}");
        }
    }
}
