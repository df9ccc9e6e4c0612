//! Policies: one concern applied once to each request of a route.
