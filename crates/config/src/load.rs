//! Reads the files of a document: one file, or all of a folder as one document.
//!
//! A folder is read in the order of the names of its files (`*.yaml`, `*.yml`, `*.json`; not those that begin with a
//! dot, and no folders inside it; symbolic links are followed). At the top level maps are merged key by key, `routes` and
//! `listeners` are joined in order, and anything else may stand in one file only. Nothing is overridden: what stands in two
//! places is an error that names both.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pylon_core::spec::{FieldPath, SpecError};

use crate::de::Problem;
use crate::diagnostic::{Diagnostic, Place};
use crate::locate;
use crate::tree::{FileId, Key, MAX_FILE, Node, Span, Value};

/// The most files of a folder.
const MAX_FILES: usize = 1_000;
/// Sequences at the top level that the files of a folder continue.
const JOINED: [&str; 2] = ["routes", "listeners"];

/// One file of a document.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Where it was read, or the name it was given.
    pub path: PathBuf,
    /// Its text, without a byte order mark.
    pub text: String,
}

/// A document as it was written.
#[derive(Debug, Clone)]
pub struct Source {
    /// The files, in the order of [`FileId`].
    pub files: Vec<SourceFile>,
    /// The document: always a map.
    pub root: Node,
}

impl Source {
    /// Reads the file or the folder at `path`.
    ///
    /// # Errors
    /// A file that is missing, unreadable, empty, larger than 16 MiB, not UTF-8 or not YAML; a folder without files; a key
    /// that stands in two files. All files are looked at.
    pub fn read(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        Self::of(files(path)?)
    }

    /// Reads a document whose files are at hand.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn from_files(files: Vec<SourceFile>) -> Result<Self, Vec<Diagnostic>> {
        Self::of(files)
    }

    /// Reads a document that is not in a file; diagnostics call it `name`.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn from_text(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::of(vec![SourceFile { path: name.into(), text: text.to_owned() }])
    }

    fn of(files: Vec<SourceFile>) -> Result<Self, Vec<Diagnostic>> {
        let mut merged = Merged { files: &files, entries: Vec::new(), span: None, diagnostics: Vec::new() };
        for (id, file) in files.iter().enumerate() {
            match Node::parse(FileId(id as u32), &file.name(), &file.text) {
                Ok(root) => merged.add(root),
                Err(diagnostics) => merged.diagnostics.extend(diagnostics),
            }
        }
        let root = merged.finish()?;
        Ok(Self { files, root })
    }

    /// The place of `span` in `file`.
    pub fn place(&self, file: FileId, span: Span) -> Place {
        place(&self.files, file, span)
    }

    /// The place of a node; a block below a key is shown at its key by [`locate::Located::mark`], not here.
    pub fn place_of(&self, node: &Node) -> Place {
        self.place(node.file, node.span)
    }

    /// A short form of a place for a sentence: `pylon.yaml:7`.
    pub fn line_of(&self, file: FileId, span: Span) -> String {
        let name = self.files.get(file.0 as usize).map(SourceFile::name).unwrap_or_default();
        format!("{name}:{}", span.line)
    }

    /// Shows a problem of [`crate::de::read`].
    pub fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let place = self.place(problem.file, problem.span);
        Diagnostic {
            label: problem.label,
            help: problem.help,
            ..Diagnostic::error(problem.title).at(place).path(problem.path.to_string())
        }
    }

    /// Shows an error of a spec that was read from `base`, which stands at `base_path` in the document, at the deepest
    /// node of its path that exists.
    pub fn spec_error(&self, base: &Node, base_path: &FieldPath, error: &SpecError) -> Diagnostic {
        let found = locate::locate(base, &error.at);
        let (file, span) = found.mark();
        self.about(file, span, &error.at.clone().below(base_path), error)
    }

    /// The same for an error whose path begins at the root of the document.
    pub fn error(&self, error: &SpecError) -> Diagnostic {
        self.spec_error(&self.root, &FieldPath::root(), error)
    }

    fn about(&self, file: FileId, span: Span, path: &FieldPath, error: &SpecError) -> Diagnostic {
        let diagnostic = Diagnostic::error(&error.problem).at(self.place(file, span)).path(path.to_string());
        let diagnostic = if path.0.is_empty() { diagnostic } else { diagnostic.label(format!("`{path}`")) };
        match &error.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }
}

/// The files that make up the document at `path`: itself, or those in the folder.
///
/// # Errors
/// A folder that cannot be read, or has no files or too many.
pub fn paths(path: &Path) -> Result<Vec<PathBuf>, Vec<Diagnostic>> {
    if path.is_dir() { list(path).map_err(|diagnostic| vec![*diagnostic]) } else { Ok(vec![path.to_owned()]) }
}

/// The files of the document at `path`, a file or a folder, whatever they say.
///
/// # Errors
/// A file that is missing, unreadable, larger than 16 MiB or not UTF-8; a folder without files. All files are looked at.
pub fn files(path: &Path) -> Result<Vec<SourceFile>, Vec<Diagnostic>> {
    let paths = paths(path)?;
    let mut files = Vec::with_capacity(paths.len());
    let mut diagnostics = Vec::new();
    for path in paths {
        match read_file(&path) {
            Ok(text) => files.push(SourceFile { path, text }),
            Err(diagnostic) => diagnostics.push(*diagnostic),
        }
    }
    if diagnostics.is_empty() { Ok(files) } else { Err(diagnostics) }
}

impl SourceFile {
    /// The file as the user named it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn place(files: &[SourceFile], file: FileId, span: Span) -> Place {
    match files.get(file.0 as usize) {
        Some(file) => Place::new(file.name(), &file.text, span),
        None => Place::new("", "", span),
    }
}

/// The files of a folder that make up a document, in the order of their names.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let kind = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json");
        // A link that leads nowhere is kept: reading it says so.
        if kind && !hidden && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    let shown = folder.display();
    if paths.is_empty() {
        let help = "Pylon reads the files in it that end in `.yaml`, `.yml` or `.json`";
        return Err(Diagnostic::error(format!("the folder {shown} holds no document")).help(help).into());
    }
    if paths.len() > MAX_FILES {
        let title = format!("the folder {shown} holds {} files, more than {MAX_FILES}", paths.len());
        return Err(Diagnostic::error(title).into());
    }
    Ok(paths)
}

fn read_file(path: &Path) -> Result<String, Box<Diagnostic>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() > MAX_FILE {
        let title = format!("{} is larger than 16 MiB, the most that is read", path.display());
        return Err(Diagnostic::error(title).into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default()).into_owned();
        let line = valid.matches('\n').count() as u32 + 1;
        let column = valid.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
        let span = Span { start: at as u32, end: at as u32, line, column };
        Diagnostic::error("this file is not UTF-8 text")
            .at(Place::new(path.display().to_string(), &valid, span))
            .label("the first byte that is not")
            .help("save the file with the encoding UTF-8")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Diagnostic::error(format!("there is no file or folder {path}"))
            .help("write one, or name another: `pylon check FILE`")
            .help("`pylon demo` writes a sample document and says where"),
        io::ErrorKind::PermissionDenied => Diagnostic::error(format!("{path} may not be read by this user")),
        _ => Diagnostic::error(format!("{path} cannot be read: {error}")),
    }
}

/// The roots of several files on their way to become one.
struct Merged<'f> {
    files: &'f [SourceFile],
    entries: Vec<(Key, Node)>,
    span: Option<(FileId, Span)>,
    diagnostics: Vec<Diagnostic>,
}

impl Merged<'_> {
    fn add(&mut self, root: Node) {
        let (file, span) = (root.file, root.span);
        match root.value {
            Value::Null => return,
            Value::Map(entries) => entries.into_iter().for_each(|entry| self.add_entry(entry)),
            _ => self.diagnostics.push(
                Diagnostic::error(format!("a document is a map of keys such as `routes:`, found {}", root.describe()))
                    .at(place(self.files, file, span)),
            ),
        }
        self.span.get_or_insert((file, span));
    }

    fn add_entry(&mut self, (key, node): (Key, Node)) {
        let Some((first, held)) = self.entries.iter_mut().find(|(first, _)| first.text == key.text) else {
            self.entries.push((key, node));
            return;
        };
        match (&mut held.value, node.value) {
            (Value::Map(held), Value::Map(new)) => {
                for (key, node) in new {
                    match held.iter().find(|(first, _)| first.text == key.text) {
                        Some((first, _)) => self.diagnostics.push(twice(self.files, &key, first)),
                        None => held.push((key, node)),
                    }
                }
            }
            (Value::Seq(held), Value::Seq(new)) if JOINED.contains(&&*key.text) => held.extend(new),
            _ => self.diagnostics.push(twice(self.files, &key, first)),
        }
    }

    fn finish(self) -> Result<Node, Vec<Diagnostic>> {
        if !self.diagnostics.is_empty() {
            return Err(self.diagnostics);
        }
        match self.span {
            Some((file, span)) => Ok(Node { value: Value::Map(self.entries), span, file }),
            None => {
                let name = self.files.first().map(SourceFile::name).unwrap_or_default();
                let title =
                    if self.files.len() > 1 { "these files are empty".into() } else { format!("{name} is empty") };
                Err(vec![
                    Diagnostic::error(title).help("the least is a listener and a route; `pylon demo` writes a sample"),
                ])
            }
        }
    }
}

fn twice(files: &[SourceFile], again: &Key, first: &Key) -> Diagnostic {
    Diagnostic::error(format!("`{}` stands in two files", again.text))
        .at(place(files, again.file, again.span))
        .label("here again")
        .related(place(files, first.file, first.span), "first here")
        .help("of the files of a folder none overrides another: take one of the two away")
}

#[cfg(test)]
mod tests;
