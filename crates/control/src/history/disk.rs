//! What the store does to a disk, step by step, so that a test can cut it off behind any of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The steps of writing.
pub(super) trait Disk {
    /// A file that is being written.
    type File;

    /// Makes a file that its owner alone may read; one that is there is emptied.
    fn create(&mut self, path: &Path) -> io::Result<Self::File>;
    /// Writes more of it.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Returns once what was written is on the disk.
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;
    /// Gives a file its name.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns once the names in a folder are on the disk.
    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The system's disk.
#[derive(Debug)]
pub(super) struct System;

impl Disk for System {
    type File = File;

    fn create(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
