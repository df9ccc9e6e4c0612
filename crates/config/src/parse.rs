//! From text to tree, over the events of the YAML parser. Nothing here calls itself, and everything is bounded, so that
//! no text can exhaust the stack or the memory.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan, StructureStyle};

use crate::diagnostic::{Diagnostic, Place};
use crate::scalar;
use crate::syntax;
use crate::tree::{FileId, Key, MAX_DEPTH, MAX_FILE, MAX_NODES, Node, Span, Style, Value};

/// The most bytes of text in the tree, aliases written out: else one long string could be named a million times.
const MAX_TEXT: usize = 4 * MAX_FILE;
/// Diagnostics of one file; further ones help nobody.
const MAX_DIAGNOSTICS: usize = 50;

/// Why reading ends here. Boxed, for it is large and every step of the way could return it.
type Refusal = Box<Diagnostic>;

/// Reads the one document that `text` holds.
pub(crate) fn parse(file: FileId, name: &str, text: &str) -> Result<Node, Vec<Diagnostic>> {
    if text.len() > MAX_FILE {
        let place = Place::new(name, "", Span { line: 1, column: 1, ..Span::default() });
        return Err(vec![Diagnostic::error("this file is larger than 16 MiB, the most that is read").at(place)]);
    }
    let mut builder = Builder::new(file, name, text);
    let untabbed = without_tabs(text);
    let options = granit_parser::options! {
        emit_comments: false,
        // A key of JSON may be long; the bound is there for the parser's memory.
        simple_key_max_lookahead: 1 << 16,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    for event in Parser::new_from_str_with_options(&untabbed, options) {
        let done = match event {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(Box::new(syntax::explain(name, text, &error))),
        };
        if let Err(fatal) = done {
            builder.diagnostics.push(*fatal);
            return Err(builder.diagnostics);
        }
    }
    builder.finish()
}

/// JSON may be indented with tabs, which the parser refuses: between brackets a tab at the beginning of a line means no
/// more than a space, which takes as many bytes.
fn without_tabs(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with(['{', '[']) || !text.contains('\t') {
        return Cow::Borrowed(text);
    }
    let mut indenting = true;
    Cow::Owned(
        text.chars()
            .map(|c| {
                let tab = indenting && c == '\t';
                indenting = matches!(c, '\n' | '\r') || (indenting && matches!(c, ' ' | '\t'));
                if tab { ' ' } else { c }
            })
            .collect(),
    )
}

/// A collection that is still open.
struct Frame {
    value: Open,
    start: YamlSpan,
    style: StructureStyle,
    /// 0 for none.
    anchor: usize,
    /// Nodes and bytes of text of the file before this collection.
    before: Size,
    /// Collections inside each other in what is closed already, this one included.
    height: usize,
}

enum Open {
    Seq(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, seen: HashMap<Box<str>, Span> },
}

/// How much there is.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
}

impl Size {
    fn plus(self, more: Self) -> Self {
        Self { nodes: self.nodes + more.nodes, text: self.text + more.text }
    }

    fn since(self, before: Self) -> Self {
        Self { nodes: self.nodes - before.nodes, text: self.text - before.text }
    }

    fn is_too_large(self) -> bool {
        self.nodes > MAX_NODES || self.text > MAX_TEXT
    }
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    size: Size,
    height: usize,
}

struct Builder<'t> {
    file: FileId,
    name: &'t str,
    text: &'t str,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    open_anchors: HashSet<usize>,
    total: Size,
    root: Option<Node>,
    documents: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Builder<'t> {
    fn new(file: FileId, name: &'t str, text: &'t str) -> Self {
        Self {
            file,
            name,
            text,
            frames: Vec::new(),
            anchors: HashMap::new(),
            open_anchors: HashSet::new(),
            total: Size::default(),
            root: None,
            documents: 0,
            diagnostics: Vec::new(),
        }
    }

    fn finish(self) -> Result<Node, Vec<Diagnostic>> {
        if !self.diagnostics.is_empty() {
            return Err(self.diagnostics);
        }
        let nothing =
            Node { value: Value::Null, span: Span { line: 1, column: 1, ..Span::default() }, file: self.file };
        Ok(self.root.unwrap_or(nothing))
    }

    fn event(&mut self, event: Event<'_>, at: &YamlSpan) -> Result<(), Refusal> {
        match event {
            Event::DocumentStart(..) => self.document(at),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.scalar(&text, style, anchor, at)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.open(Open::Seq(Vec::new()), style, anchor, at)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                let map = Open::Map { entries: Vec::new(), key: None, seen: HashMap::new() };
                self.open(map, style, anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Alias(id) => self.alias(id, at),
            _ => Ok(()),
        }
    }

    fn document(&mut self, at: &YamlSpan) -> Result<(), Refusal> {
        self.documents += 1;
        if self.documents < 2 {
            return Ok(());
        }
        let help = "take the line `---` away, or write a file for each part and give Pylon the folder";
        Err(self.diagnostic("a file holds one document, but a second one begins here", at).help(help).into())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, at: &YamlSpan) -> Result<(), Refusal> {
        // The parser says `~` for nothing at all.
        let nothing = style == ScalarStyle::Plain && byte(&at.start) >= byte(&at.end);
        if nothing && self.key_is_next() {
            return Err(self.diagnostic("a key is missing before this colon", at).into());
        }
        self.count(Size { nodes: 1, text: text.len() }, at)?;
        let plain = style == ScalarStyle::Plain;
        if self.key_is_next() {
            if plain && text == "<<" {
                let diagnostic = self
                    .diagnostic("merge keys (`<<`) are not part of the language", at)
                    .help("write the keys out; policies that many routes share may stand once under `defaults`");
                self.push(diagnostic);
            }
            self.key(text, at);
            return Ok(());
        }
        let value = if nothing {
            Value::Null
        } else if plain {
            scalar::plain(text)
        } else {
            Value::Str(text.into(), Style::Quoted)
        };
        let node = Node { value, span: span_of(at), file: self.file };
        self.remember(anchor, &node, Size { nodes: 1, text: text.len() }, 0, at)?;
        self.place(node, 0);
        Ok(())
    }

    fn key(&mut self, text: &str, at: &YamlSpan) {
        let span = span_of(at);
        let file = self.file;
        let Some(Frame { value: Open::Map { key, seen, .. }, .. }) = self.frames.last_mut() else { return };
        *key = Some(Key { text: text.into(), span, file });
        let Some(first) = seen.insert(text.into(), span) else { return };
        seen.insert(text.into(), first);
        let diagnostic = Diagnostic::error(format!("the key `{text}` stands twice in this map"))
            .at(self.place_of(span))
            .label("here again")
            .related(self.place_of(first), "first here")
            .help("take one of the two away; Pylon does not choose between them");
        self.push(diagnostic);
    }

    /// Whether the next node is a key of the innermost collection.
    fn key_is_next(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { value: Open::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, value: Open, style: StructureStyle, anchor: usize, at: &YamlSpan) -> Result<(), Refusal> {
        if self.key_is_next() {
            let help = "put text that begins with `{`, `[` or `?` in quotes";
            return Err(self.diagnostic("a key must be a word, not a collection", at).help(help).into());
        }
        let before = self.total;
        self.count(Size { nodes: 1, text: 0 }, at)?;
        if self.frames.len() >= MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        if anchor != 0 {
            self.open_anchors.insert(anchor);
        }
        self.frames.push(Frame { value, start: *at, style, anchor, before, height: 1 });
        Ok(())
    }

    fn close(&mut self, at: &YamlSpan) -> Result<(), Refusal> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let mut span = span_of(&frame.start);
        let (value, inner) = match frame.value {
            Open::Seq(items) => {
                let inner = items.last().map(|item| item.span);
                (Value::Seq(items), inner)
            }
            Open::Map { entries, .. } => {
                // A block map is announced where its first key stands, or a character before.
                if let (StructureStyle::Block, Some((first, _))) = (frame.style, entries.first()) {
                    span = first.span;
                }
                let inner =
                    entries.last().map(|(key, node)| if node.span.end > key.span.end { node.span } else { key.span });
                (Value::Map(entries), inner)
            }
        };
        span.end = match (frame.style, inner) {
            // The end of a block is only known where the next thing begins.
            (StructureStyle::Block, Some(inner)) => inner.end,
            _ => byte(&at.end),
        }
        .max(span.start);
        let node = Node { value, span, file: self.file };
        let size = self.total.since(frame.before);
        self.open_anchors.remove(&frame.anchor);
        self.remember(frame.anchor, &node, size, frame.height, at)?;
        self.place(node, frame.height);
        Ok(())
    }

    fn alias(&mut self, id: usize, at: &YamlSpan) -> Result<(), Refusal> {
        let Some(Anchored { node, size, height }) = self.anchors.get(&id) else {
            let inside = self.open_anchors.contains(&id);
            let title =
                if inside { "this alias stands inside the very value it names" } else { "no anchor has this name" };
            return Err(self.diagnostic(title, at).into());
        };
        let (size, height) = (*size, *height);
        if self.frames.len() + height > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        // Before it is copied.
        if self.total.plus(size).is_too_large() {
            return Err(self.too_large(at));
        }
        let node = node.clone();
        self.total = self.total.plus(size);
        if !self.key_is_next() {
            self.place(node, height);
            return Ok(());
        }
        let Some(text) = node.text() else {
            return Err(self.diagnostic("a key must be a word, and this alias names something else", at).into());
        };
        self.key(text, at);
        Ok(())
    }

    fn remember(
        &mut self,
        anchor: usize,
        node: &Node,
        size: Size,
        height: usize,
        at: &YamlSpan,
    ) -> Result<(), Refusal> {
        if anchor != 0 {
            self.count(size, at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), size, height });
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, height: usize) {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(frame) => {
                frame.height = frame.height.max(height + 1);
                match &mut frame.value {
                    Open::Seq(items) => items.push(node),
                    Open::Map { entries, key, .. } => {
                        if let Some(key) = key.take() {
                            entries.push((key, node));
                        }
                    }
                }
            }
        }
    }

    fn count(&mut self, size: Size, at: &YamlSpan) -> Result<(), Refusal> {
        self.total = self.total.plus(size);
        if self.total.is_too_large() { Err(self.too_large(at)) } else { Ok(()) }
    }

    fn refuse_tag(&mut self, tagged: bool, at: &YamlSpan) {
        if !tagged {
            return;
        }
        let span = at.tag_span().unwrap_or(*at);
        let diagnostic = self
            .diagnostic("tags (`!…`) are not part of the language", &span)
            .help("take the tag away; text that begins with `!` goes in quotes");
        self.push(diagnostic);
    }

    fn too_deep(&self, at: &YamlSpan) -> Refusal {
        let title = format!("this stands deeper than {MAX_DEPTH} collections inside each other");
        self.diagnostic(&title, at).into()
    }

    fn too_large(&self, at: &YamlSpan) -> Refusal {
        let title = format!("this file holds more than {MAX_NODES} values, its aliases written out");
        let help = "a document of that size has hardly been written by hand: look for aliases that name other aliases";
        self.diagnostic(&title, at).help(help).into()
    }

    fn diagnostic(&self, title: &str, at: &YamlSpan) -> Diagnostic {
        Diagnostic::error(title).at(self.place_of(span_of(at)))
    }

    fn place_of(&self, span: Span) -> Place {
        Place::new(self.name, self.text, span)
    }

    /// Keeps a diagnostic after which reading goes on.
    fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        }
    }
}

fn span_of(at: &YamlSpan) -> Span {
    let start = byte(&at.start);
    Span {
        start,
        end: byte(&at.end).max(start),
        line: at.start.line().max(1) as u32,
        column: at.start.col() as u32 + 1,
    }
}

pub(crate) fn byte(marker: &Marker) -> u32 {
    marker.byte_offset().unwrap_or_else(|| marker.index()) as u32
}

#[cfg(test)]
mod tests;
