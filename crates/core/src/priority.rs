//! How much a request matters to the owner of the gate, where there is not enough for all.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The class of a request. What is shed first is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Priority {
    /// Can be done without: prefetching, reports, copies.
    Low,
    /// What nothing else is said of.
    #[default]
    Normal,
    /// Somebody waits for it.
    High,
    /// The business ends where this fails.
    Critical,
}

impl Priority {
    /// The least first, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];
    /// The names in documents, log and metrics, in the same order.
    pub const NAMES: [&'static str; 4] = ["low", "normal", "high", "critical"];

    /// The name in documents, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The class of this name, in whatever case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|class| text.eq_ignore_ascii_case(class.as_str().as_bytes()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_and_read_by_their_names() {
        assert!(Priority::ALL.is_sorted());
        for (class, name) in Priority::ALL.into_iter().zip(Priority::NAMES) {
            assert_eq!((class.as_str(), Priority::parse(name.to_uppercase().as_bytes())), (name, Some(class)));
        }
        assert_eq!((Priority::parse(b"urgent"), Priority::default()), (None, Priority::Normal));
    }
}
