//! Makes everything that is known about policies out of the one list in `registry`: enums, dispatch, catalogue, schema.
//!
//! Dispatch is by enum: nothing is boxed and nothing is looked up while a request is served.

/// Takes the blocks of the registry; see there for what a line says.
macro_rules! policies {
    ($( $Phase:ident in $module:ident {
        $( $(#[$when:meta])* $key:ident: $Policy:ident, $title:literal, $kind:ident; )*
    } )*) => {
        /// A policy as written, of any kind.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(clippy::large_enum_variant, reason = "there are few, and none stays once it is compiled")]
        pub enum AnySpec {
            $($(
                $(#[$when])*
                #[doc = $title]
                $Policy(<$crate::$module::$key::$Policy as $crate::policy::Policy>::Spec),
            )*)*
        }

        /// A policy at work, of any kind.
        #[derive(Debug)]
        pub enum AnyPolicy {
            $($( $(#[$when])* #[doc = $title] $Policy($crate::$module::$key::$Policy), )*)*
        }

        /// What a policy remembers from request to response, of any kind.
        #[derive(Debug)]
        pub enum AnyMemo {
            $($(
                $(#[$when])*
                #[doc = $title]
                $Policy(<$crate::$module::$key::$Policy as $crate::policy::Policy>::Memo),
            )*)*
        }

        /// Every policy there is, in the order that requests meet them.
        pub static CATALOGUE: &[Entry] = &[
            $($(
                $(#[$when])*
                Entry {
                    key: stringify!($key),
                    phase: Phase::$Phase,
                    title: $title,
                    shadow: $crate::table::is_verdict!($kind),
                    doc: {
                        const SOURCE: &str = include_str!(concat!(stringify!($module), "/", stringify!($key), ".rs"));
                        static PAGE: [u8; $crate::manual::length(SOURCE)] = $crate::manual::page(SOURCE);
                        $crate::manual::text(&PAGE)
                    },
                },
            )*)*
        ];

        /// Reads the policy `key`: nothing if there is no such policy, and nothing within if `reader` could not read it.
        pub fn read_spec<R: SpecReader>(key: &str, reader: R) -> Option<Option<AnySpec>> {
            $($(
                $(#[$when])*
                if key == stringify!($key) {
                    return Some(reader.read().map(AnySpec::$Policy));
                }
            )*)*
            None
        }

        /// The JSON Schema of what may stand behind the key of a policy; nothing if there is no such policy.
        pub fn schema(key: &str, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
            $($(
                $(#[$when])*
                if key == stringify!($key) {
                    type Written = <$crate::$module::$key::$Policy as $crate::policy::Policy>::Spec;
                    return Some(generator.subschema_for::<Written>());
                }
            )*)*
            None
        }

        impl AnySpec {
            /// The key that it stands behind in a document.
            pub fn key(&self) -> &'static str {
                match self {
                    $($( $(#[$when])* Self::$Policy(_) => stringify!($key), )*)*
                }
            }

            /// See [`Policy::PROVES_CONSUMERS`]($crate::policy::Policy::PROVES_CONSUMERS).
            pub fn proves_consumers(&self) -> bool {
                match self {
                    $($(
                        $(#[$when])*
                        Self::$Policy(_) => {
                            <$crate::$module::$key::$Policy as $crate::policy::Policy>::PROVES_CONSUMERS
                        }
                    )*)*
                }
            }

            /// Makes what runs: one policy for each step in which the key has its place. Paths of errors begin at the spec.
            pub fn compile(
                &self,
                cx: &$crate::policy::Compiling<'_>,
            ) -> Result<Vec<AnyPolicy>, Vec<pylon_core::spec::SpecError>> {
                match self {
                    $($(
                        $(#[$when])*
                        Self::$Policy(spec) => {
                            let policy = <$crate::$module::$key::$Policy as $crate::policy::Policy>::compile(spec, cx)?;
                            Ok(vec![AnyPolicy::$Policy(policy)])
                        }
                    )*)*
                }
            }
        }

        impl serde::Serialize for AnySpec {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $($( $(#[$when])* Self::$Policy(spec) => spec.serialize(serializer), )*)*
                }
            }
        }

        /// The places of the registry, first to last.
        #[derive(Clone, Copy)]
        #[repr(usize)]
        enum Place {
            $($( $(#[$when])* $Policy, )*)*
        }

        impl AnyPolicy {
            /// Its place in the order that requests meet policies: its index in [`CATALOGUE`].
            pub fn place(&self) -> usize {
                match self {
                    $($( $(#[$when])* Self::$Policy(_) => Place::$Policy as usize, )*)*
                }
            }

            /// The key that it was written behind.
            pub fn key(&self) -> &'static str {
                match self {
                    $($( $(#[$when])* Self::$Policy(_) => stringify!($key), )*)*
                }
            }

            /// See [`Policy::on_request`]($crate::policy::Policy::on_request).
            pub fn on_request<'a>(
                &'a self,
                req: &'a mut pylon_core::Request,
                cx: &'a mut pylon_core::exchange::Exchange,
            ) -> $crate::policy::Step<'a, AnyMemo> {
                match self {
                    $($(
                        $(#[$when])*
                        Self::$Policy(policy) => {
                            $crate::policy::Policy::on_request(policy, req, cx).map(AnyMemo::$Policy)
                        }
                    )*)*
                }
            }

            /// See [`Policy::challenge`]($crate::policy::Policy::challenge).
            pub fn challenge(&self) -> Option<http::HeaderValue> {
                match self {
                    $($(
                        $(#[$when])*
                        Self::$Policy(policy) => $crate::policy::Policy::challenge(policy),
                    )*)*
                }
            }

            /// See [`Policy::on_refused`]($crate::policy::Policy::on_refused).
            pub fn on_refused(&self, req: &pylon_core::Request) -> Option<AnyMemo> {
                match self {
                    $($(
                        $(#[$when])*
                        Self::$Policy(policy) => {
                            $crate::policy::Policy::on_refused(policy, req).map(AnyMemo::$Policy)
                        }
                    )*)*
                }
            }

            /// See [`Policy::on_response`]($crate::policy::Policy::on_response). A memo of another policy does nothing.
            pub fn on_response<'a>(
                &'a self,
                memo: AnyMemo,
                res: &'a mut pylon_core::Response,
                cx: &'a mut pylon_core::exchange::Exchange,
            ) -> $crate::policy::Step<'a, ()> {
                match (self, memo) {
                    $($(
                        $(#[$when])*
                        (Self::$Policy(policy), AnyMemo::$Policy(memo)) => {
                            $crate::policy::Policy::on_response(policy, memo, res, cx)
                        }
                    )*)*
                    _ => $crate::policy::Step::Done(Ok(())),
                }
            }
        }
    };
}

/// Whether the last word of a line means a verdict.
macro_rules! is_verdict {
    (judges) => {
        true
    };
    (acts) => {
        false
    };
}

pub(crate) use {is_verdict, policies};
