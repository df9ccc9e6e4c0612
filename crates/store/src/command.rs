//! What is said to a store and what it answers, in words of our own: no other module knows which client carries them.

/// One command with its arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub(crate) Vec<Vec<u8>>);

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments may be secrets.
        let name = self.0.first().map(|name| String::from_utf8_lossy(name).into_owned());
        f.debug_struct("Command").field("name", &name.unwrap_or_default()).finish_non_exhaustive()
    }
}

impl Command {
    /// A command of this name.
    pub fn new(name: &str) -> Self {
        Self(vec![name.as_bytes().to_vec()])
    }

    /// With one argument more.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.0.push(argument.as_ref().to_vec());
        self
    }

    /// With a number more.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }
}

/// What is answered to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing is there.
    Nothing,
    /// It is done.
    Done,
    /// A number.
    Number(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several replies.
    List(Vec<Reply>),
}

impl Reply {
    /// Bytes; none where nothing is there.
    pub fn bytes(self) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Nothing => Ok(None),
            Self::Bytes(bytes) => Ok(Some(bytes)),
            _ => Err(StoreError::Odd),
        }
    }

    /// Several byte strings.
    pub fn list(self) -> Result<Vec<Vec<u8>>, StoreError> {
        match self {
            Self::List(items) => items.into_iter().map(|item| item.bytes()?.ok_or(StoreError::Odd)).collect(),
            _ => Err(StoreError::Odd),
        }
    }

    /// A number.
    pub fn number(self) -> Result<i64, StoreError> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(StoreError::Odd),
        }
    }
}

/// Why a store gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no link to it now, and no call is tried.
    #[error("the store cannot be reached: {0}")]
    Down(String),
    /// There was no answer in time.
    #[error("the store did not answer in time")]
    Late,
    /// The link broke.
    #[error("the link to the store broke: {0}")]
    Broken(String),
    /// It says no.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// It answers what was not asked for.
    #[error("the store answers what was not asked for")]
    Odd,
}
