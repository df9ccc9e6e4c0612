//! What an expression may be made of, so that its time is bounded although its evaluator bounds nothing.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr};

use crate::Unread;
use crate::facts::{CALLER, Looks, REQUEST};

/// The most parts of an expression, counted after its loops were taken apart.
const MOST_PARTS: usize = 512;
/// How deep parts may lie in one another.
const DEEPEST: usize = 48;
/// The most loops.
const MOST_LOOPS: usize = 4;
/// The most that a compiled pattern may take, in bytes.
const LARGEST_PATTERN: usize = 64 * 1024;

/// Operators, and functions whose time is that of a comparison.
const LIGHT: &[&str] = &[
    "_?_:_",
    "_&&_",
    "_||_",
    "!_",
    "_-_",
    "_+_",
    "_*_",
    "_/_",
    "_%_",
    "_==_",
    "_!=_",
    "_>=_",
    "_<=_",
    "_>_",
    "_<_",
    "-_",
    "_[_]",
    "@in",
    "@not_strictly_false",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "type",
    "split",
    "lowerAscii",
    "upperAscii",
    "trim",
    "substring",
    "indexOf",
    "lastIndexOf",
    "charAt",
];
/// Functions whose time or whose result may be large.
const HEAVY: &[&str] = &["matches", "join", "replace"];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) heavy: bool,
    pub(crate) names_caller: bool,
    /// What it looks at of the request.
    pub(crate) looks: Looks,
    parts: usize,
    loops: usize,
}

/// Holds an expression to its bounds.
pub(crate) fn check(expression: &IdedExpr) -> Result<Found, Unread> {
    let mut found = Found::default();
    Walk { found: &mut found, own: Vec::new(), looping: false }.part(expression, 0)?;
    if !found.names_caller && found.looks.is_empty() {
        let help =
            "compare something of `request` or `caller`; to let everybody in, leave the expression out".to_owned();
        return no("the expression is the same for every request", help);
    }
    Ok(found)
}

struct Walk<'f, 'e> {
    found: &'f mut Found,
    /// The names that loops give to what they are at.
    own: Vec<&'e str>,
    /// Whether this is within what a loop does each time.
    looping: bool,
}

fn no<T>(problem: impl Into<String>, help: impl Into<Option<String>>) -> Result<T, Unread> {
    Err(Unread { problem: problem.into(), help: help.into() })
}

impl<'e> Walk<'_, 'e> {
    fn part(&mut self, part: &'e IdedExpr, depth: usize) -> Result<(), Unread> {
        self.found.parts = self.found.parts.saturating_add(1);
        if self.found.parts > MOST_PARTS || depth > DEEPEST {
            return no("the expression is too large", "let several routes have one each, or ask a service".to_owned());
        }
        let deeper = depth.saturating_add(1);
        match &part.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select, deeper),
            Expr::Call(call) => self.call(call, deeper),
            Expr::Comprehension(each) => self.each(each, deeper),
            Expr::List(list) => list.elements.iter().try_for_each(|item| self.part(item, deeper)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.part(&entry.key, deeper)?;
                    self.part(&entry.value, deeper)
                }
                EntryExpr::StructField(field) => self.part(&field.value, deeper),
            }),
            Expr::Struct(_) | Expr::Unspecified => no("there are no messages here", None),
        }
    }

    fn name(&mut self, name: &str) -> Result<(), Unread> {
        match name {
            "caller" => self.found.names_caller = true,
            // As a whole.
            "request" => self.found.looks = Looks::ALL,
            "int" | "uint" | "double" | "string" | "bool" | "list" | "map" | "null_type" => {}
            own if own.starts_with('@') || self.own.contains(&own) => {}
            other => {
                let help = "known are `request` and `caller`; texts stand in quotes".to_owned();
                return no(format!("nothing is named `{other}`"), help);
            }
        }
        Ok(())
    }

    fn select(&mut self, select: &'e SelectExpr, depth: usize) -> Result<(), Unread> {
        let known: &[&str] = match &select.operand.expr {
            Expr::Ident(name) if self.own.contains(&name.as_str()) => &[],
            Expr::Ident(name) if name == "request" => REQUEST,
            Expr::Ident(name) if name == "caller" => CALLER,
            _ => &[],
        };
        if !known.is_empty() && !known.contains(&select.field.as_str()) {
            let listed: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            return no(format!("there is no `{}` there", select.field), format!("known are {}", listed.join(", ")));
        }
        if known == REQUEST {
            self.found.looks.add(Looks::at(&select.field));
            return Ok(());
        }
        self.part(&select.operand, depth)
    }

    fn call(&mut self, call: &'e CallExpr, depth: usize) -> Result<(), Unread> {
        let name = call.func_name.as_str();
        if HEAVY.contains(&name) {
            self.found.heavy = true;
        } else if !LIGHT.contains(&name) {
            let functions = LIGHT.iter().chain(HEAVY).filter(|name| name.starts_with(char::is_alphabetic));
            let listed: Vec<String> = functions.map(|name| format!("`{name}`")).collect();
            return no(format!("there is no function `{name}` here"), format!("known are {}", listed.join(", ")));
        }
        if name == "matches" {
            pattern(call.args.last())?;
        }
        if let Some(target) = &call.target {
            self.part(target, depth)?;
        }
        call.args.iter().try_for_each(|argument| self.part(argument, depth))
    }

    fn each(&mut self, each: &'e ComprehensionExpr, depth: usize) -> Result<(), Unread> {
        self.found.heavy = true;
        self.found.loops = self.found.loops.saturating_add(1);
        if self.looping || self.found.loops > MOST_LOOPS {
            let problem = if self.looping { "a loop stands in another" } else { "there are too many loops" };
            let help = "its time would grow with the square of what comes: ask a service for that".to_owned();
            return no(problem, help);
        }
        self.part(&each.iter_range, depth)?;
        self.part(&each.accu_init, depth)?;
        let before = self.own.len();
        self.own.push(&each.iter_var);
        self.own.extend(each.iter_var2.as_deref());
        self.looping = true;
        self.part(&each.loop_cond, depth)?;
        self.part(&each.loop_step, depth)?;
        self.looping = false;
        self.own.truncate(before);
        self.part(&each.result, depth)
    }
}

/// A pattern must stand there, so that no client brings one.
fn pattern(written: Option<&IdedExpr>) -> Result<(), Unread> {
    let Some(Expr::Literal(LiteralValue::String(text))) = written.map(|part| &part.expr) else {
        return no("the pattern of `matches` is no text that stands there", "write it in quotes".to_owned());
    };
    match regex::RegexBuilder::new(text.inner()).size_limit(LARGEST_PATTERN).build() {
        Ok(_) => Ok(()),
        Err(error) => no(format!("the pattern of `matches` cannot be used: {error}"), None),
    }
}
