//! Asks the admin API of a gateway that runs: one request of HTTP/1.1 in cleartext on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pylon_config::plan::{PlainSecrets, reveal};
use pylon_core::secret::SecretSpec;

/// How long the gateway may take to accept, and to go on with its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes.
const MOST: u64 = 64 * 1024 * 1024;

/// What callers show.
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArguments {
    /// The token of the admin API, as `env:NAME` or `file:PATH`. Default: the variable `PYLON_ADMIN_TOKEN`, if it is set.
    #[arg(long, value_name = "SECRET")]
    token: Option<String>,
}

/// A gateway's admin API.
#[derive(Debug)]
pub(crate) struct Remote {
    address: SocketAddr,
    host: String,
    token: Option<Vec<u8>>,
}

/// What it answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Remote {
    /// By its URL, such as `http://127.0.0.1:9901`.
    pub(crate) fn at(url: &str, token: &TokenArguments) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        if host.contains("://") || host.contains('/') || host.is_empty() {
            bail!("`{url}` is not where an admin API is: write `http://127.0.0.1:9901`");
        }
        let mut found = host.to_socket_addrs().with_context(|| format!("`{host}` is no address with a port"))?;
        let address = found.next().ok_or_else(|| anyhow!("`{host}` has no address"))?;
        Ok(Self { address, host: host.to_owned(), token: token.reveal()? })
    }

    /// Sends JSON and takes the answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> anyhow::Result<Reply> {
        let answer = self.exchange(path, body);
        let bytes = answer.with_context(|| format!("the admin API at {} does not answer", self.host))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| anyhow!("{} speaks no HTTP", self.host))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| anyhow!("{} speaks no HTTP", self.host))?;
        if status == 401 {
            bail!("the admin API demands a token: give `--token env:NAME`, or set PYLON_ADMIN_TOKEN");
        }
        Ok(Reply { status, body: body.to_owned() })
    }

    fn exchange(&self, path: &str, body: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0, so that the answer ends with the connection and is in no chunks.
        let mut request = format!(
            "POST {path} HTTP/1.0\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        if let Some(token) = &self.token {
            request.extend_from_slice(b"authorization: Bearer ");
            request.extend_from_slice(token);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.as_bytes());
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

impl TokenArguments {
    fn reveal(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let set = std::env::var_os("PYLON_ADMIN_TOKEN").is_some_and(|token| !token.is_empty());
        let spec = match &self.token {
            Some(text) => SecretSpec::parse(text),
            None if set => SecretSpec::Env("PYLON_ADMIN_TOKEN".to_owned()),
            None => return Ok(None),
        };
        let secret = reveal(&spec, PlainSecrets::Refused).map_err(|error| anyhow!("`--token`: {}", error.problem))?;
        if secret.expose().iter().any(u8::is_ascii_control) {
            bail!("`--token`: a token is one line");
        }
        Ok(Some(secret.expose().to_vec()))
    }
}
