//! Where the endpoints of an upstream come from. Runs on the control runtime; requests only ever see finished sets.

pub(crate) mod dns;
pub(crate) mod static_list;
