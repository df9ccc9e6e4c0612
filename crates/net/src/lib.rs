//! Sockets: listeners, dialling, resolving, timers, and the one adapter to hyper.
