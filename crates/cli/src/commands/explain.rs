//! `pylon explain METHOD URL`: which route a request meets, and why.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use pylon_control::explain::{Question, answer};

use super::DocumentArguments;
use crate::output;

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
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let method =
            Method::from_bytes(self.method.as_bytes()).with_context(|| format!("`{}` is not a method", self.method))?;
        let headers = self.headers.iter().map(|field| header(field)).collect::<anyhow::Result<Vec<_>>>()?;
        let document = DocumentArguments { document: self.document, allow_plain_secrets: self.allow_plain_secrets };
        let Some(prepared) = document.prepare() else { return Ok(ExitCode::from(output::FAILED)) };
        let question = Question { method, url: self.url, headers, client: self.client };
        let text = answer(&prepared, question).map_err(|problem| anyhow!(problem))?;
        output::line(text.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

fn header(field: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) =
        field.split_once(':').with_context(|| format!("`{field}` is not a header field: write `Name: value`"))?;
    let name = HeaderName::try_from(name.trim()).with_context(|| format!("`{name}` is not a header name"))?;
    let value = HeaderValue::try_from(value.trim()).with_context(|| format!("`{value}` is not a header value"))?;
    Ok((name, value))
}
