//! Authorize: says what the caller may do, and that there has to be one.

pub mod anonymous;
pub mod external;
pub mod require;
