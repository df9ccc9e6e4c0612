//! Figures of the long forms of tests, which the environment may change: how often, for how long, how fast.

/// The figure of this name: what `PYLON_SOAK_<NAME>` says, or else `usual`.
///
/// # Panics
/// If the environment says something that is no number.
pub fn figure(name: &str, usual: usize) -> usize {
    let name = format!("PYLON_SOAK_{name}");
    match std::env::var(&name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => usual,
    }
}
