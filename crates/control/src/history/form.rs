//! How a revision stands in its file: one line with length and BLAKE3 checksum, then the revision as JSON.

use super::Revision;

/// The first words of a file.
const MARK: &str = "pylon-revision 1";

/// Why a file is no revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its first line is not that of a revision, or of one that another version writes.
    #[error("it does not begin as a revision does")]
    Mark,
    /// It ends too early, or goes on.
    #[error("it is not as long as it was written")]
    Length,
    /// Its bytes are not those that were written.
    #[error("its checksum does not hold")]
    Checksum,
    /// Its bytes are those that were written, and make no revision.
    #[error("it cannot be read")]
    Content,
}

/// The bytes of a revision's file.
pub(super) fn write(revision: &Revision) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(revision)?;
    let mut bytes = format!("{MARK} {} {}\n", body.len(), blake3::hash(&body).to_hex()).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The revision in a file, if it is whole.
pub(super) fn read(bytes: &[u8]) -> Result<Revision, Damage> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Damage::Mark)?;
    let (head, body) = bytes.split_at_checked(end).ok_or(Damage::Mark)?;
    let body = body.get(1..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| Damage::Mark)?;
    let rest = head.strip_prefix(MARK).and_then(|rest| rest.strip_prefix(' ')).ok_or(Damage::Mark)?;
    let (length, checksum) = rest.split_once(' ').ok_or(Damage::Mark)?;
    if length.parse() != Ok(body.len()) {
        return Err(Damage::Length);
    }
    if blake3::hash(body).to_hex().as_str() != checksum {
        return Err(Damage::Checksum);
    }
    serde_json::from_slice(body).map_err(|_| Damage::Content)
}
