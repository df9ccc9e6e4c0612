//! Stands in for the link to Redis in a gateway that was built without it: the document is refused that names one.

use std::convert::Infallible;

use pylon_core::secret::Reveal;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::resolve::Resolver;
use pylon_observe::insight::StoreReading;
use tokio::runtime::Handle;

use crate::command::{Command, Reply, StoreError};
use crate::spec::RedisSpec;

/// A link that there never is.
#[derive(Debug)]
pub struct Redis(Infallible);

impl Redis {
    /// Says that there is none.
    pub fn new(_: &RedisSpec, _: &Resolver, _: Reveal) -> Result<Self, Vec<SpecError>> {
        let error = SpecError::new(FieldPath::root(), "this gateway was built without Redis");
        Err(vec![error.help("build it with the feature `redis`, which is on by default")])
    }

    /// See the link that there is.
    pub fn start(&self, _: &Handle) {
        match self.0 {}
    }

    /// See the link that there is.
    #[expect(clippy::unused_async, reason = "it is what the other is")]
    pub async fn settle(&self) {
        match self.0 {}
    }

    /// See the link that there is.
    #[expect(clippy::unused_async, reason = "it is what the other is")]
    pub async fn run(&self, _: &[Command], _: bool) -> Result<Vec<Reply>, StoreError> {
        match self.0 {}
    }

    /// See the link that there is.
    pub fn key(&self, _: &str) -> String {
        match self.0 {}
    }

    /// See the link that there is.
    pub fn reading(&self) -> StoreReading {
        match self.0 {}
    }
}
