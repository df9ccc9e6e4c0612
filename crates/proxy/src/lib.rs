//! The data plane: snapshot, serve, actions.
