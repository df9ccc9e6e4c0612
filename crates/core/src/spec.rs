//! Errors in what a person wrote, and where: a path of fields that `config` turns into file, line and column.

use std::fmt;

/// One step down a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into the value of a key.
    Key(String),
    /// Into an item of a sequence, counted from 0.
    Index(usize),
}

/// Where in a spec something stands, from the spec's own root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The spec itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// This path, one key deeper.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// This path, one item deeper.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// This path below `base`.
    #[must_use]
    pub fn below(self, base: &FieldPath) -> Self {
        let mut steps = base.0.clone();
        steps.extend(self.0);
        Self(steps)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Where, from the spec's root.
    pub at: FieldPath,
    /// What is wrong, as a sentence without a full stop.
    pub problem: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl SpecError {
    /// An error at `at`.
    pub fn new(at: FieldPath, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into(), help: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error seen from a spec that holds this one at `base`.
    #[must_use]
    pub fn below(mut self, base: &FieldPath) -> Self {
        self.at = self.at.below(base);
        self
    }
}
