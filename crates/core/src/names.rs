//! Names of things in a document: routes, upstreams, consumers. Cheap to clone, compared by text.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $Name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// The stable id of a route: its `name`, or the canonical text of its match.
    RouteId
}
name! {
    /// The name of an upstream, unique in a document.
    UpstreamName
}
name! {
    /// The name of a consumer, unique in a document.
    ConsumerName
}

impl Default for ConsumerName {
    fn default() -> Self {
        Self::from("")
    }
}
