//! The control plane: admin API and probes.
