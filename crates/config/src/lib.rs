//! The document as a person writes it: read into a tree that knows where everything stands, and turned into typed
//! specs with diagnostics that name the place, the cause and the remedy. Only this crate knows YAML.
//!
//! The way of a document: [`load::Source`] reads a file or a folder, [`tree::Node`] is what was written,
//! [`de::read`] makes a spec of a part of it, [`diagnostic::Diagnostic`] says what is wrong.

pub mod admin;
pub mod compile;
pub mod de;
pub mod diagnostic;
pub mod discovery;
pub mod document;
pub mod keys;
pub mod load;
pub mod locate;
pub mod plain;
pub mod plan;
pub mod reference;
pub mod schema;
mod stores;
pub mod suggest;
pub mod tree;

mod excerpt;
mod parse;
mod scalar;
mod syntax;
