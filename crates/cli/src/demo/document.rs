//! The sample document: made from a template with the services' ports filled in, and written where nothing is lost.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::demo::services::Ports;

const TEMPLATE: &str = include_str!("pylon.yaml");

/// How many names are tried before giving up.
const MOST_NAMES: u32 = 100;

/// The document for a gateway on 127.0.0.1:`listen` with its admin API on 127.0.0.1:`admin`.
pub(crate) fn text(ports: Ports, listen: u16, admin: u16) -> String {
    let mut text = TEMPLATE.replace("@LISTEN@", &listen.to_string()).replace("@ADMIN@", &admin.to_string());
    for (name, port) in ports.by_name() {
        text = text.replace(&format!("@{name}@"), &port.to_string());
    }
    text
}

/// Writes `text` as `pylon.yaml` into `dir`, or into a new folder of its own among the temporary ones; returns the whole
/// path. A file that says something else is never overwritten: the next free name is taken (`pylon-2.yaml` …).
pub(crate) fn write(dir: Option<&Path>, text: &str) -> io::Result<PathBuf> {
    let dir = match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            std::path::absolute(dir)?
        }
        None => own_folder(&std::env::temp_dir())?,
    };
    first_free(|number| {
        let path = dir.join(numbered("pylon", number) + ".yaml");
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                Ok(path)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && says(&path, text) => Ok(path),
            Err(error) => Err(error),
        }
    })
}

/// A new folder that only this user can enter. It must be new: in a folder that others can write, whoever guessed the
/// name could have put a link there.
fn own_folder(parent: &Path) -> io::Result<PathBuf> {
    let name = format!("pylon-demo-{}", std::process::id());
    first_free(|number| {
        let path = parent.join(numbered(&name, number));
        DirBuilder::new().mode(0o700).create(&path).map(|()| path)
    })
}

/// Tries numbers from 1 until one does not exist already.
fn first_free(mut attempt: impl FnMut(u32) -> io::Result<PathBuf>) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        match attempt(number) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MOST_NAMES => number += 1,
            result => return result,
        }
    }
}

fn numbered(name: &str, number: u32) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}-{number}") }
}

/// Whether the file at `path` holds `text` and nothing else.
fn says(path: &Path, text: &str) -> bool {
    let same_length =
        File::open(path).and_then(|file| file.metadata()).is_ok_and(|m| m.is_file() && m.len() == text.len() as u64);
    same_length && std::fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ports() -> Ports {
        Ports { users: 41001, orders: 41002, inventory: 41003, recommendations: 41004, recommendations_v2: 41005 }
    }

    #[test]
    fn every_port_is_filled_in_once() {
        let text = text(ports(), 8080, 9901);
        assert!(!text.contains('@'), "{text}");
        for port in [41001, 41002, 41003, 41004, 41005, 9901] {
            assert_eq!(text.matches(&format!("127.0.0.1:{port}")).count(), 1, "{port}");
        }
        assert!(text.contains("address: 127.0.0.1:8080 }"));
    }

    #[test]
    fn the_document_has_no_key_and_no_value_that_does_not_exist() {
        let source = pylon_config::load::Source::from_text("pylon.yaml", &text(ports(), 8080, 9901)).unwrap();
        let (document, wrong) = pylon_config::document::read(&source);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let names: Vec<_> = document.upstreams.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ports().by_name().map(|(name, _)| name));
    }

    #[test]
    fn a_document_that_differs_is_kept_and_one_that_does_not_is_used_again() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        let first = write(Some(&dir), "one").unwrap();
        assert_eq!(first, dir.join("pylon.yaml"));
        assert_eq!(write(Some(&dir), "one").unwrap(), first);
        assert_eq!(write(Some(&dir), "two").unwrap(), dir.join("pylon-2.yaml"));
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one");
    }

    #[test]
    fn a_link_is_never_followed_to_write() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = home.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, home.path().join("pylon.yaml")).unwrap();
        assert_eq!(write(Some(home.path()), "text").unwrap(), home.path().join("pylon-2.yaml"));
        assert!(!elsewhere.exists());
    }

    #[test]
    fn the_folder_among_the_temporary_ones_is_new_and_private() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (own_folder(home.path()).unwrap(), own_folder(home.path()).unwrap());
        assert_ne!(one, two);
        assert_eq!(one.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(write(Some(&file.join("below")), "text").is_err());
    }
}
