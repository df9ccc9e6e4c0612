//! Shape: what changes requests and responses once it is settled that they pass.

pub mod fault;
pub mod headers;
pub mod mint;
