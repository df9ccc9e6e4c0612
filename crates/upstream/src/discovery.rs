//! Where the endpoints of an upstream come from. Runs on the control runtime; requests only ever see finished sets.
//!
//! Each kind of source is one file: it follows what it looks at, and reports what it finds (`source::Report`). What all
//! have in common is elsewhere: the last good answer and its age in `ledger`, pools and names in `source`.

pub mod agents;
pub mod consul;
pub(crate) mod dns;
pub mod etcd;
pub mod file;
pub mod kubernetes;
pub(crate) mod ledger;
pub(crate) mod query;
pub(crate) mod source;
pub mod spec;
pub(crate) mod srv;
pub(crate) mod static_list;
pub(crate) mod target;
