//! The tree of templates, in flat arenas: finds all templates that take a path, the most specific first.
//!
//! Each node stands for one segment. A search goes down the literal child, then the children with text around their
//! variable part, then the whole-segment child, then takes the rest, and comes back when nothing below was good enough.
//! It meets each node at most once, so a client cannot make it slower than the document allows.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use smallvec::SmallVec;

use crate::hash::hash;
use crate::pattern::{Pattern, Segment, Span, affix_order};
use crate::segment;

/// Up to this many literal children are compared one by one; more are looked up by hash.
const SCAN: usize = 8;

const NONE: u32 = u32::MAX;

/// Spans taken so far.
pub(crate) type Spans = SmallVec<[Span; 4]>;

/// What a search tells of.
pub(crate) trait Visitor {
    /// A route whose host and path match. Routes come in order. Whoever breaks off may take the spans away.
    fn candidate(&mut self, route: u32, spans: &mut Spans) -> ControlFlow<()>;

    /// A node was entered; tests count these.
    fn node(&mut self) {}
}

/// The path under search.
pub(crate) struct Text<'a> {
    bytes: &'a [u8],
    /// No segment has a triplet or parameters, and case counts: segments are their own canonical form.
    plain: bool,
    fold: bool,
}

impl<'a> Text<'a> {
    pub(crate) fn new(path: &'a str, fold: bool) -> Self {
        let bytes = path.as_bytes();
        Self { bytes, plain: !fold && memchr::memchr2(b'%', b';', bytes).is_none(), fold }
    }
}

#[derive(Debug, Default)]
struct Node {
    literals: Range<u32>,
    affixes: Range<u32>,
    param: Option<u32>,
    /// Routes that end here and routes that take the rest from here, in order.
    ends: Range<u32>,
    rests: Range<u32>,
}

/// A literal child. What is compared first stands in the edge itself, so that most lookups never touch the text.
#[derive(Debug)]
struct Edge {
    /// The first eight bytes, see [`head`].
    head: u64,
    text: Range<u32>,
    parent: u32,
    child: u32,
}

#[derive(Debug)]
struct Affix {
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
    child: u32,
}

/// The compiled tree; one for all hosts, each of which has a root of its own.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    affixes: Vec<Affix>,
    routes: Vec<u32>,
    text: Vec<u8>,
    /// Open addressing over the edges of large nodes: hash and edge. Its length is a power of two.
    slots: Vec<(u32, u32)>,
}

impl Tree {
    /// Tells the visitor of all candidates below `root`, in order.
    pub(crate) fn walk<V: Visitor>(&self, root: u32, text: &Text<'_>, visitor: &mut V) -> ControlFlow<()> {
        let start = if text.bytes.first() == Some(&b'/') { Some(1) } else { None };
        self.descend(root, text, start, &mut Spans::new(), visitor)
    }

    /// `start` is where the next segment begins, or `None` when the path is used up.
    fn descend<V: Visitor>(
        &self,
        node: u32,
        text: &Text<'_>,
        start: Option<usize>,
        spans: &mut Spans,
        visitor: &mut V,
    ) -> ControlFlow<()> {
        visitor.node();
        let Some(node_data) = self.nodes.get(node as usize) else { return ControlFlow::Continue(()) };
        let Some(start) = start else {
            return self.tell(&node_data.ends, spans, visitor);
        };
        let left = text.bytes.get(start..).unwrap_or_default();
        let end = memchr::memchr(b'/', left);
        let segment = left.get(..end.unwrap_or(left.len())).unwrap_or_default();
        let next = end.map(|end| start + end + 1);

        if !node_data.literals.is_empty() {
            let child = if text.plain {
                self.literal(node, node_data, segment)
            } else {
                self.literal(node, node_data, &segment::canonical(segment, text.fold))
            };
            if let Some(child) = child {
                self.descend(child, text, next, spans, visitor)?;
            }
        }
        for affix in slice(&self.affixes, &node_data.affixes) {
            let between = segment::between(segment, &affix.prefix, &affix.suffix, text.plain, text.fold);
            if let Some((offset, length)) = between {
                spans.push(Span::new(start + offset, length));
                self.descend(affix.child, text, next, spans, visitor)?;
                spans.pop();
            }
        }
        if let Some(child) = node_data.param
            && !segment.is_empty()
        {
            spans.push(Span::new(start, segment.len()));
            self.descend(child, text, next, spans, visitor)?;
            spans.pop();
        }
        if !node_data.rests.is_empty() {
            spans.push(Span::new(start, left.len()));
            self.tell(&node_data.rests, spans, visitor)?;
            spans.pop();
        }
        ControlFlow::Continue(())
    }

    fn tell<V: Visitor>(&self, routes: &Range<u32>, spans: &mut Spans, visitor: &mut V) -> ControlFlow<()> {
        for route in slice(&self.routes, routes) {
            visitor.candidate(*route, spans)?;
        }
        ControlFlow::Continue(())
    }

    fn literal(&self, parent: u32, node: &Node, segment: &[u8]) -> Option<u32> {
        if node.literals.len() <= SCAN {
            let edges = slice(&self.edges, &node.literals);
            let wanted = head(segment);
            return edges.iter().find(|edge| self.is_text(edge, wanted, segment)).map(|edge| edge.child);
        }
        let wanted = hash(parent, segment);
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = wanted as usize & mask;
        // Half of the slots are empty, so this ends.
        loop {
            let &(found, edge) = self.slots.get(at)?;
            if edge == NONE {
                return None;
            }
            if found == wanted
                && let Some(edge) = self.edges.get(edge as usize)
                && edge.parent == parent
                && self.is_text(edge, head(segment), segment)
            {
                return Some(edge.child);
            }
            at = (at + 1) & mask;
        }
    }

    fn is_text(&self, edge: &Edge, head: u64, segment: &[u8]) -> bool {
        edge.head == head
            && edge.text.len() == segment.len()
            && (segment.len() <= 8 || slice(&self.text, &edge.text) == segment)
    }
}

/// The first eight bytes of a segment as a number; shorter ones are filled up with zeros.
fn head(segment: &[u8]) -> u64 {
    match segment.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => segment.iter().rev().fold(0, |head, byte| (head << 8) | u64::from(*byte)),
    }
}

fn slice<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    all.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// Collects templates before they are laid out flat.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    nodes: Vec<Draft>,
    literals: HashMap<(u32, Box<[u8]>), u32>,
}

#[derive(Debug, Default)]
struct Draft {
    literals: Vec<(Box<[u8]>, u32)>,
    affixes: Vec<Affix>,
    param: Option<u32>,
    ends: Vec<u32>,
    rests: Vec<u32>,
}

impl Builder {
    /// A new root.
    pub(crate) fn root(&mut self) -> u32 {
        self.nodes.push(Draft::default());
        self.nodes.len() as u32 - 1
    }

    /// Adds a template, folded already if case does not count, and returns the list of routes of the same shape.
    pub(crate) fn add(&mut self, root: u32, pattern: &Pattern) -> Option<&mut Vec<u32>> {
        let mut at = root;
        for segment in pattern.segments() {
            at = match segment {
                Segment::Literal(text) => self.literal(at, text)?,
                Segment::Param { prefix, suffix, .. } if prefix.is_empty() && suffix.is_empty() => {
                    match self.nodes.get(at as usize)?.param {
                        Some(child) => child,
                        None => {
                            let child = self.root();
                            self.nodes.get_mut(at as usize)?.param = Some(child);
                            child
                        }
                    }
                }
                Segment::Param { prefix, suffix, .. } => self.affix(at, prefix, suffix)?,
                Segment::Rest { .. } => return self.nodes.get_mut(at as usize).map(|node| &mut node.rests),
            };
        }
        self.nodes.get_mut(at as usize).map(|node| &mut node.ends)
    }

    fn literal(&mut self, parent: u32, text: &[u8]) -> Option<u32> {
        let key = (parent, Box::from(text));
        if let Some(child) = self.literals.get(&key) {
            return Some(*child);
        }
        let child = self.root();
        self.nodes.get_mut(parent as usize)?.literals.push((text.into(), child));
        self.literals.insert(key, child);
        Some(child)
    }

    fn affix(&mut self, parent: u32, prefix: &[u8], suffix: &[u8]) -> Option<u32> {
        let known = &self.nodes.get(parent as usize)?.affixes;
        if let Some(affix) = known.iter().find(|affix| *affix.prefix == *prefix && *affix.suffix == *suffix) {
            return Some(affix.child);
        }
        let child = self.root();
        let affixes = &mut self.nodes.get_mut(parent as usize)?.affixes;
        affixes.push(Affix { prefix: prefix.into(), suffix: suffix.into(), child });
        Some(child)
    }

    /// Lays the tree out flat; `order` sorts the routes of one shape.
    pub(crate) fn finish(self, order: impl Fn(&u32, &u32) -> Ordering) -> Tree {
        let mut tree = Tree::default();
        for (at, mut draft) in self.nodes.into_iter().enumerate() {
            draft.affixes.sort_by(|a, b| affix_order(&a.prefix, &a.suffix).cmp(&affix_order(&b.prefix, &b.suffix)));
            draft.ends.sort_by(&order);
            draft.rests.sort_by(&order);
            let node = Node {
                literals: extend(
                    &mut tree.edges,
                    draft.literals.into_iter().map(|(text, child)| Edge {
                        head: head(&text),
                        text: extend(&mut tree.text, text),
                        parent: at as u32,
                        child,
                    }),
                ),
                affixes: extend(&mut tree.affixes, draft.affixes),
                param: draft.param,
                ends: extend(&mut tree.routes, draft.ends),
                rests: extend(&mut tree.routes, draft.rests),
            };
            tree.nodes.push(node);
        }
        tree.slots = slots(&tree);
        tree
    }
}

fn extend<T>(all: &mut Vec<T>, more: impl IntoIterator<Item = T>) -> Range<u32> {
    let start = all.len() as u32;
    all.extend(more);
    start..all.len() as u32
}

fn slots(tree: &Tree) -> Vec<(u32, u32)> {
    let large = tree.nodes.iter().filter(|node| node.literals.len() > SCAN);
    let edges: Vec<u32> = large.flat_map(|node| node.literals.clone()).collect();
    let mut slots = vec![(0, NONE); (edges.len() * 2).next_power_of_two().max(2)];
    let mask = slots.len() - 1;
    for edge in edges {
        let Some(data) = tree.edges.get(edge as usize) else { continue };
        let hash = hash(data.parent, slice(&tree.text, &data.text));
        let mut at = hash as usize & mask;
        while slots.get(at).is_some_and(|(_, taken)| *taken != NONE) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = (hash, edge);
        }
    }
    slots
}
