//! The row of policies: who asks is told by a token, a page of another origin may ask, headers are changed both ways.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::client::Client;
use super::load::Wrk;
use super::programs::Program;
use super::report::Section;
use super::rows::{CONNECTIONS, RIGHT, Setting};
use super::wire::Plan;

/// Names that the configurations in `bench/` know.
const ISSUER: &str = "https://id.bench.test";
const AUDIENCE: &str = "api";
const API_KEY: &str = "key-of-shop";
const ORIGIN: &str = "https://app.bench.test";
const SUBJECT: &str = "3f6c1a52-8d1e-4b7a-9d0c-5a4e2f1b7c90";
/// The token is good for as long as a bench may take, in seconds.
const LIFETIME: u64 = 24 * 60 * 60;

pub(crate) fn row(setting: &Setting<'_>) -> Result<Section> {
    let service = setting.stage.backend.port;
    let headers = shown(&setting.stage.home)?;
    for program in setting.programs {
        if let Some(configuration) = program.wired("policies").filter(|_| program.demands_tokens()) {
            refuses(setting, *program, &configuration)?;
        }
    }
    let plan = Plan {
        row: "policies",
        title: "100 bytes; a token (RS256), CORS, headers both ways, access log and metrics; nginx without the token"
            .to_owned(),
        configuration: "policies",
        service,
        connections: CONNECTIONS,
        unit: "request",
        drive: Rc::new(Wrk { path: "/s".to_owned(), headers, expect: RIGHT, service, tls: None }),
        besides: None,
    };
    Ok(plan.run(setting)?.1)
}

/// What callers show of themselves; the keys by which it is verified are written to the folder.
pub(crate) fn shown(home: &Path) -> Result<Vec<(String, String)>> {
    let token = format!("Bearer {}", issue(home)?);
    let headers = [("Authorization", token.as_str()), ("X-Api-Key", API_KEY), ("Origin", ORIGIN)];
    Ok(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}

/// Who lets a request without a token pass does not do the work that is measured.
fn refuses(setting: &Setting<'_>, program: Program, configuration: &str) -> Result<()> {
    let running = setting.stage.start(program, configuration)?;
    let status = Client::connect(running.port)?.get("/s")?.status;
    running.end()?;
    ensure!(status == 401, "{} answers a request without a token by {status}", program.name());
    Ok(())
}

/// Makes a key, writes its public half to the folder as a set of keys, and gives a token signed by it.
fn issue(home: &Path) -> Result<String> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    // A sequence of two numbers (RFC 8017, A.1.1): for 2048 bits they stand always in the same places.
    let public = key.public_key().as_ref();
    let (n, e) = public.get(9..265).zip(public.get(267..)).context("the key is not of 2048 bits")?;
    let [n, e] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number));
    let set = format!(r#"{{"keys":[{{"kty":"RSA","use":"sig","alg":"RS256","kid":"bench","n":"{n}","e":"{e}"}}]}}"#);
    fs::write(home.join("keys.json"), set)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let head = r#"{"alg":"RS256","typ":"JWT","kid":"bench"}"#;
    let claims = format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"{SUBJECT}","iat":{now},"exp":{},"scope":"read write"}}"#,
        now + LIFETIME
    );
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
