//! How many files and sockets the process may have, raised to what the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept back of all files for the gateway itself: logs, listening sockets, the admin API.
const OWN: u64 = 64;

/// Raises the limit of open files to the hard one, and answers what it is now; none where there is none.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it fails, what there was remains.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// How many connections of clients so many files are good for: each may want another one to an upstream.
pub fn connections(files: Option<u64>) -> usize {
    let files = files.unwrap_or(u64::MAX);
    usize::try_from((files.saturating_sub(OWN) / 2).max(16)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_and_half_of_it_is_for_clients() {
        let files = raise();
        assert_eq!(files, getrlimit(Resource::Nofile).maximum);
        assert_eq!(connections(Some(1024)), 480);
        assert_eq!(connections(Some(10)), 16);
        assert_eq!(connections(None), usize::MAX / 2 - 32);
    }
}
