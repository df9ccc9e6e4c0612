//! Metrics, access log and the wall clock.
