//! Limit: how much of what is behind the gate a request may have, once it is known who asks.

pub mod priority;
