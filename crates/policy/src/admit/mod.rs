//! Admit: what answers or turns away a request before anybody asks who sent it.

pub mod cors;
pub mod csrf;
