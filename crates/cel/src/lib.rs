//! Expressions over a request and its caller, in the Common Expression Language (CEL, <https://cel.dev>): read with bounds, evaluated to
//! yes or no.
//!
//! The evaluator has no limit of its own, so what can be written is limited instead: the length of the text, the number and the depth of
//! its parts, loops (`all`, `exists`, `exists_one`, `map`, `filter`) of which none may stand in another, the functions, and patterns
//! of `matches`, which must be texts that stand there. What it is evaluated against is bounded too. So its time is bounded by the
//! product of a thousand items and a few hundred parts; [`Expression::is_heavy`] tells which expressions may come near that.
//!
//! It stands in a crate of its own because what it rests on takes long to build.

mod bounds;
mod facts;

use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value, extensions};

pub use self::facts::Facts;

/// The longest expression, in bytes.
pub const LONGEST: usize = 4096;

/// How deep brackets may lie in one another, wherever they stand.
const DEEPEST: usize = 48;
/// The stack on which an expression is read, in bytes. What of it is not used takes no memory.
const STACK: usize = 64 * 1024 * 1024;

/// An expression that was read.
pub struct Expression {
    program: Program,
    heavy: bool,
    names_caller: bool,
    looks: facts::Looks,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("heavy", &self.heavy).finish_non_exhaustive()
    }
}

/// Why there is no expression: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What is wrong.
    pub problem: String,
    /// What to do, where that is known.
    pub help: Option<String>,
}

impl Expression {
    /// Reads an expression, within bounds.
    pub fn read(source: &str) -> Result<Self, Unread> {
        if source.len() > LONGEST {
            let problem = format!("the expression is longer than {LONGEST} bytes");
            return Err(Unread { problem, help: Some("let several routes have one each, or ask a service".into()) });
        }
        if nesting(source) > DEEPEST {
            let help = "let several routes have one each, or ask a service".to_owned();
            return Err(Unread { problem: "the expression is nested too deeply".into(), help: Some(help) });
        }
        // The parser goes down with its text, each level several times: on a stack of its own it cannot take the process along.
        let owned = source.to_owned();
        let reader = std::thread::Builder::new().name("expression".into()).stack_size(STACK);
        let read = reader
            .spawn(move || Self::parse(&owned))
            .map_err(|error| Unread { problem: format!("it cannot be read now: {error}"), help: None })?;
        read.join().unwrap_or_else(|_| Err(Unread { problem: "the parser fails on it".into(), help: None }))
    }

    fn parse(source: &str) -> Result<Self, Unread> {
        let program = environment().compile(source).map_err(|errors| {
            let first = errors.errors.first().map(|error| error.msg.clone());
            Unread { problem: first.unwrap_or_else(|| "it is no expression".to_owned()), help: None }
        })?;
        let found = bounds::check(program.expression())?;
        Ok(Self { program, heavy: found.heavy, names_caller: found.names_caller, looks: found.looks })
    }

    /// Whether it may take more than a moment: it has a loop, or a function whose time grows with what it is given.
    pub fn is_heavy(&self) -> bool {
        self.heavy
    }

    /// Whether it looks at the caller.
    pub fn names_caller(&self) -> bool {
        self.names_caller
    }

    /// Whether it holds for these facts. The error says why it says neither, for the log.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(environment()));
        for (name, value) in facts.variables(self.looks, self.names_caller)? {
            context.add_variable_from_value(name, value);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("the expression is {}, and neither true nor false", other.type_of())),
            Err(error) => {
                // Some errors show whole values.
                let text = error.to_string();
                Err(text.chars().take(200).collect())
            }
        }
    }
}

/// The most brackets that are open at once, those within texts counted too.
fn nesting(source: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open = open.saturating_add(1),
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// The standard functions and those over texts.
fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        // It fails where a function is declared twice, which these are not; without them such expressions are errors.
        let _declared = env.add_extension(extensions::strings);
        Arc::new(env)
    });
    &ENVIRONMENT
}

#[cfg(test)]
mod tests;
