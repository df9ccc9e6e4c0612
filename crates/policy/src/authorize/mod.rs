//! Authorize: says what the caller may do, and that there has to be one.

pub mod anonymous;
#[cfg(feature = "cel")]
pub mod expression;
pub mod external;
pub mod require;
