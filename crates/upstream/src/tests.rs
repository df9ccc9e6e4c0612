//! Whole calls over real sockets, against services that follow a script.

mod calls;
mod fixture;
