//! Holds the dependencies against `deny.toml`: licences, bans and sources. Advisories need a network and are not asked.

use anyhow::{Result, bail};

use crate::shell;

pub(crate) fn run() -> Result<bool> {
    if shell::output(shell::cargo()?.args(["deny", "--version"])).is_err() {
        bail!("cargo-deny is not installed: cargo install --locked cargo-deny");
    }
    let status = shell::cargo()?.args(["deny", "check", "licenses", "bans", "sources"]).status()?;
    Ok(status.success())
}
