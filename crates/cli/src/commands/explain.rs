//! `pylon explain METHOD URL`: which route a request meets, and why.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pylon_control::explain::{Question, answer};
use serde_json::Value;

use super::DocumentArguments;
use crate::output;
use crate::remote::{Remote, TokenArguments};

/// See [`super::Command::Explain`].
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The method of the request.
    method: String,
    /// The URL, such as `http://api.example.com/users/7`, or just a path.
    url: String,
    /// A header field, `Name: value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The address that the request comes from.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    client: IpAddr,
    /// The document: a file, or a folder of files.
    #[arg(long, short, default_value = "pylon.yaml")]
    document: PathBuf,
    /// Accept secrets that stand in the document in plain text.
    #[arg(long)]
    allow_plain_secrets: bool,
    /// Ask the gateway whose admin API is here, such as `http://127.0.0.1:9901`: it explains by the document in force, with
    /// the state of endpoints, pools and limits that the request would meet.
    #[arg(long, value_name = "URL", conflicts_with_all = ["document", "allow_plain_secrets"])]
    live: Option<String>,
    #[command(flatten)]
    token: TokenArguments,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let headers = self.headers.iter().map(|field| header(field)).collect::<anyhow::Result<Vec<_>>>()?;
        let question = Question { method: self.method, url: self.url, headers, client: self.client };
        if let Some(url) = &self.live {
            return live(url, &self.token, &question);
        }
        let document = DocumentArguments { document: self.document, allow_plain_secrets: self.allow_plain_secrets };
        let Some(prepared) = document.prepare() else { return Ok(ExitCode::from(output::FAILED)) };
        let text = answer(&prepared, &question).map_err(|problem| anyhow!(problem))?;
        output::line(text.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

fn live(url: &str, token: &TokenArguments, question: &Question) -> anyhow::Result<ExitCode> {
    let reply = Remote::at(url, token)?.post("/api/explain", &serde_json::to_string(question)?)?;
    if reply.status != 200 {
        bail!("the gateway answers {}: {}", reply.status, reply.body.trim());
    }
    let told: Value = serde_json::from_str(&reply.body).context("the gateway's answer is no explanation")?;
    output::line(told.get("text").and_then(Value::as_str).unwrap_or_default().trim_end());
    Ok(ExitCode::SUCCESS)
}

fn header(field: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        field.split_once(':').with_context(|| format!("`{field}` is not a header field: write `Name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
