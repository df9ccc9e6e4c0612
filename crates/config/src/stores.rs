//! The key `stores`: where is kept what changes without the document.

use std::path::Path;
use std::sync::Arc;

use pylon_core::carry::Carry;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_policy::keys::KeyFile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where is kept what changes without the document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoresSpec {
    /// The file of API keys that `pylon keys` writes; it is watched, so that a key holds, and is revoked, within a second. It must
    /// be there. Default: the keys of `consumers` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"keys.json")]
    pub keys: Option<String>,
}

impl StoresSpec {
    /// The file of API keys, which is the same as in the document before.
    pub(crate) fn key_file(&self, carry: &Carry) -> Result<Option<Arc<KeyFile>>, SpecError> {
        let Some(path) = &self.keys else { return Ok(None) };
        let name = format!("keys {path}");
        if let Some(file) = carry.living::<KeyFile>(&name) {
            return Ok(Some(file));
        }
        let file = KeyFile::open(Path::new(path)).map_err(|problem| {
            let error = SpecError::new(
                FieldPath::root().key("keys"),
                format!("the API keys in `{path}` cannot be read: {problem}"),
            );
            error.help(format!("`pylon keys create CONSUMER --store {path}` makes the file with a first key"))
        })?;
        let file = Arc::new(file);
        carry.hold(name, &file);
        Ok(Some(file))
    }
}
