//! `pylon schema`: the JSON Schema of documents, made from the types that read them.

use std::process::ExitCode;

use crate::output;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    output::line(&serde_json::to_string_pretty(&pylon_config::schema::document())?);
    Ok(ExitCode::SUCCESS)
}
