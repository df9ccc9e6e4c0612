//! How the API server of Kubernetes is reached: from within the cluster, or by a kubeconfig.
//!
//! Within, the address stands in the environment, and token, roots and namespace in the folder of the service account, where
//! they are renewed; of a kubeconfig the common fields are read. All of it is read anew for each list and each watch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_net::tls::client::{Alpn, ClientTls};
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::discovery::agents::Reading;
use crate::discovery::file::ReadYaml;
use crate::fetch::Remote;

/// Where a pod finds what its service account is.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSpec {
    /// A kubeconfig file, for a gateway outside of the cluster. Plugins that fetch credentials (`exec`) are not run. Default: none,
    /// the gateway runs in the cluster. Example: `/etc/pylon/kubeconfig`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current one. Example: `production`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The folder with `token`, `ca.crt` and `namespace` of the service account, for a gateway in the cluster. Default:
    /// `/var/run/secrets/kubernetes.io/serviceaccount`. Example: `/run/account`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<PathBuf>,
}

/// How the server is reached.
#[derive(Debug)]
pub(crate) struct Access {
    way: Way,
    resolver: Resolver,
}

#[derive(Debug, Clone)]
enum Way {
    Within { account: PathBuf },
    Kubeconfig { path: PathBuf, context: Option<String>, yaml: ReadYaml },
}

/// The server, and who asks it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) remote: Remote,
    pub(crate) authorization: Option<HeaderValue>,
    /// Where nothing else is said.
    pub(crate) namespace: String,
}

impl Access {
    /// A kubeconfig must be right; of a cluster nothing is asked before it is needed, so that documents can be checked elsewhere.
    pub(crate) fn compile(spec: Option<&KubernetesSpec>, cx: &Reading<'_>) -> Result<Self, Vec<SpecError>> {
        let spec = spec.cloned().unwrap_or_default();
        let wrong = |key: &str, problem: String| vec![SpecError::new(FieldPath::root().key(key), problem)];
        let way = match (spec.kubeconfig, spec.context, spec.service_account) {
            (Some(_), _, Some(_)) => {
                let problem = "a service account is for a gateway in the cluster, `kubeconfig` for one outside";
                return Err(wrong("service_account", problem.to_owned()));
            }
            (Some(path), context, None) => Way::Kubeconfig { path, context, yaml: cx.yaml },
            (None, Some(_), _) => return Err(wrong("context", "only a `kubeconfig` has contexts".to_owned())),
            (None, None, account) => Way::Within { account: account.unwrap_or_else(|| ACCOUNT.into()) },
        };
        if let Way::Kubeconfig { path, context, yaml } = &way {
            kubeconfig(path, context.as_deref(), *yaml, cx.resolver).map_err(|error| wrong("kubeconfig", error))?;
        }
        Ok(Self { way, resolver: cx.resolver.clone() })
    }

    /// Reads it all anew.
    pub(crate) async fn session(&self) -> Result<Session, String> {
        let (way, resolver) = (self.way.clone(), self.resolver.clone());
        let read = move || match way {
            Way::Within { account } => within(&account, |name| std::env::var(name).ok(), &resolver),
            Way::Kubeconfig { path, context, yaml } => kubeconfig(&path, context.as_deref(), yaml, &resolver),
        };
        // Files may stand on a disk that is slow.
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn within(account: &Path, env: impl Fn(&str) -> Option<String>, resolver: &Resolver) -> Result<Session, String> {
    let host = env("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty()).ok_or(
        "this is no pod of Kubernetes, since KUBERNETES_SERVICE_HOST is not set: write `discovery: { kubernetes: { kubeconfig: … } }`",
    )?;
    let port = env("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let text = |name: &str| file(&account.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let ca = file(&account.join("ca.crt"))?;
    let tls = ClientTls::from_pem(UpstreamTlsSpec::default(), Some(&ca), None, Alpn::Http1)?;
    let remote = Remote::with_tls(&format!("https://{host}:{port}"), Some(&Arc::new(tls)), resolver);
    let remote = remote.map_err(|error| error.problem)?;
    let namespace = text("namespace").unwrap_or_else(|_| "default".to_owned());
    Ok(Session { remote, authorization: Some(bearer(&text("token")?)?), namespace })
}

/// The part of a kubeconfig that its context leads to.
fn kubeconfig(path: &Path, context: Option<&str>, yaml: ReadYaml, resolver: &Resolver) -> Result<Session, String> {
    let text = String::from_utf8_lossy(&file(path)?).into_owned();
    let config = yaml(&text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    session(&config, context, folder, resolver).map_err(|error| format!("`{}`: {error}", path.display()))
}

fn session(config: &Value, context: Option<&str>, folder: &Path, resolver: &Resolver) -> Result<Session, String> {
    let current = config.get("current-context").and_then(Value::as_str);
    let context = context.or(current).ok_or("there is no current context: write `context`")?;
    let context = named(config, "contexts", "context", context)?;
    let name = |key: &str| context.get(key).and_then(Value::as_str);
    let cluster = named(config, "clusters", "cluster", name("cluster").ok_or("the context has no cluster")?)?;
    let nobody = Value::Null;
    let user = name("user").map_or(Ok(&nobody), |user| named(config, "users", "user", user))?;
    for plugin in ["exec", "auth-provider"] {
        if user.get(plugin).is_some_and(|plugin| !plugin.is_null()) {
            return Err(format!(
                "the user's credentials come from a plugin (`{plugin}`), and plugins are not run: use a token or a certificate, as of a service account"
            ));
        }
    }
    let text = |map: &Value, key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
    let ca = material(cluster, "certificate-authority", folder)?;
    let (cert, key) = (material(user, "client-certificate", folder)?, material(user, "client-key", folder)?);
    let identity = match (&cert, &key) {
        (Some(cert), Some(key)) => Some((cert.as_slice(), key.as_slice())),
        (None, None) => None,
        _ => return Err("the user's certificate and its key belong together".to_owned()),
    };
    let verify = cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool) != Some(true);
    let spec = UpstreamTlsSpec { server_name: text(cluster, "tls-server-name"), verify, ..UpstreamTlsSpec::default() };
    let server = text(cluster, "server").ok_or("the cluster has no server")?;
    // In cleartext there is nothing to verify by, and the system's roots need not be there.
    let secure = server.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let tls = secure.then(|| ClientTls::from_pem(spec, ca.as_deref(), identity, Alpn::Http1).map(Arc::new));
    let tls = tls.transpose()?;
    let remote = Remote::with_tls(&server, tls.as_ref(), resolver).map_err(|error| error.problem)?;
    let token = match (text(user, "token"), text(user, "tokenFile")) {
        (Some(token), _) => Some(token),
        (None, Some(path)) => Some(String::from_utf8_lossy(&file(&folder.join(path))?).trim().to_owned()),
        (None, None) => None,
    };
    let authorization = token.map(|token| bearer(&token)).transpose()?;
    Ok(Session { remote, authorization, namespace: text(context, "namespace").unwrap_or_else(|| "default".to_owned()) })
}

/// The entry of a list by its name.
fn named<'a>(config: &'a Value, list: &str, key: &str, name: &str) -> Result<&'a Value, String> {
    let mut entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
    let entry = entries.find(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
    entry.and_then(|entry| entry.get(key)).ok_or_else(|| format!("there is no {key} `{name}`"))
}

/// What stands in `<key>-data`, or in the file that `key` names.
fn material(map: &Value, key: &str, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = map.get(format!("{key}-data")).and_then(Value::as_str) {
        let decoded = STANDARD.decode(data.trim());
        return decoded.map(Some).map_err(|error| format!("`{key}-data` is not in base64: {error}"));
    }
    map.get(key).and_then(Value::as_str).map(|path| file(&folder.join(path))).transpose()
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| "the token has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolver() -> Resolver {
        Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()
    }

    fn config(user: &Value) -> Value {
        json!({
            "current-context": "here",
            "contexts": [
                { "name": "here", "context": { "cluster": "c", "user": "u", "namespace": "shop" } },
                { "name": "bare", "context": { "cluster": "c" } },
            ],
            "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:6443/k8s", "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "u", "user": user }],
        })
    }

    #[test]
    fn a_kubeconfig_leads_from_its_context_to_server_namespace_and_token() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let session = |user: &Value, context| super::session(&config(user), context, folder.path(), &resolver());
        let here = session(&json!({ "token": "t" }), None).unwrap();
        assert_eq!((here.remote.shown().as_str(), here.namespace.as_str()), ("127.0.0.1:6443", "shop"));
        assert_eq!(here.authorization.unwrap(), "Bearer t");
        let by_file = session(&json!({ "tokenFile": "token" }), None).unwrap();
        assert_eq!(by_file.authorization.unwrap(), "Bearer from-file");
        let bare = session(&json!({}), Some("bare")).unwrap();
        assert!(bare.authorization.is_none() && bare.namespace == "default");
    }

    #[test]
    fn what_a_kubeconfig_cannot_say_here_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            |user: Value, context| super::session(&config(&user), context, folder.path(), &resolver()).unwrap_err();
        assert!(error(json!({ "exec": { "command": "aws" } }), None).contains("plugins are not run"));
        assert!(error(json!({ "auth-provider": { "name": "gcp" } }), None).contains("plugins are not run"));
        assert!(error(json!({}), Some("there")).contains("no context `there`"));
        assert!(error(json!({ "client-certificate-data": "eA==" }), None).contains("belong together"));
        assert!(
            error(json!({ "client-certificate-data": "?", "client-key-data": "" }), None).contains("not in base64")
        );
        assert!(error(json!({ "tokenFile": "nowhere" }), None).contains("cannot be read"));
    }

    #[test]
    fn outside_of_a_cluster_the_remedy_is_named_and_inside_its_account_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let error = within(folder.path(), |_| None, &resolver()).unwrap_err();
        assert!(error.contains("kubeconfig"), "{error}");
        let env = |name: &str| (name == "KUBERNETES_SERVICE_HOST").then(|| "::1".to_owned());
        let error = within(folder.path(), env, &resolver()).unwrap_err();
        assert!(error.contains("ca.crt` cannot be read"), "{error}");
    }
}
