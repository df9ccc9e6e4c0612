//! Names routes that can never match, because others always come first or because of what they ask for.
//!
//! What is reported is certain; not all that is dead is found: expressions are compared by their text only.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::matching::{PathMatch, RouteMatch};
use crate::normalise::EncodedSlash;
use crate::predicate::MethodSet;
use crate::table::Table;
use pylon_core::host::HostPattern;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The index of the route.
    pub route: usize,
    /// The route that always comes first, if that is the reason.
    pub shadowed_by: Option<usize>,
    /// The reason, as a sentence without a full stop.
    pub why: String,
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Looks through a table; findings are in the order of the routes.
pub fn lint(table: &Table) -> Vec<Lint> {
    let routes = table.routes();
    let mut lints = Vec::new();
    let mut dead: BTreeMap<usize, Vec<(&HostPattern, Shadow)>> = BTreeMap::new();
    for ((host, _), group) in groups(table) {
        for (position, &index) in group.members.iter().enumerate() {
            let earlier = group.members.get(..position).unwrap_or_default();
            let before = group.before.iter().chain(earlier).copied();
            if let Some(by) = shadow(routes, before, index) {
                dead.entry(index).or_default().push((host, by));
            }
        }
    }
    for (index, hosts) in dead {
        let (Some(route), Some((_, shadow))) = (routes.get(index), hosts.first()) else { continue };
        let other = routes.get(shadow.by).map(ToString::to_string).unwrap_or_default();
        let first = if shadow.alone { "always comes first" } else { "and others always come first" };
        let why = if hosts.len() == route.hosts.len() {
            format!("this route can never match: `{other}` {first}")
        } else {
            let names: Vec<String> = hosts.iter().map(|(host, _)| format!("`{host}`")).collect();
            format!("this route can never match on {}: `{other}` {first} there", names.join(" and "))
        };
        lints.push(Lint { route: index, shadowed_by: Some(shadow.by), why });
    }
    for (index, route) in routes.iter().enumerate() {
        lints.extend(impossible(route).map(|why| Lint { route: index, shadowed_by: None, why: why.to_owned() }));
    }
    lints.sort_by_key(|lint| lint.route);
    lints
}

/// Routes that meet the same requests by host and path.
#[derive(Default)]
struct Group {
    /// Templates that take every path of the host, where the members are expressions: those come after them.
    before: Vec<usize>,
    /// In the order in which they are tried.
    members: Vec<usize>,
}

fn groups(table: &Table) -> BTreeMap<(&HostPattern, String), Group> {
    let routes = table.routes();
    let mut groups: BTreeMap<(&HostPattern, String), Group> = BTreeMap::new();
    let mut every: BTreeMap<&HostPattern, Vec<usize>> = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        let shape = match &route.path {
            PathMatch::Template(pattern) if table.options().ignore_case => pattern.folded().shape(),
            PathMatch::Template(pattern) => pattern.shape(),
            PathMatch::Regex(_) => route.path.to_string(),
        };
        for host in &route.hosts {
            groups.entry((host, shape.clone())).or_default().members.push(index);
            if matches!(&route.path, PathMatch::Template(pattern) if pattern.is_every()) {
                every.entry(host).or_default().push(index);
            }
        }
    }
    for ((host, _), group) in &mut groups {
        group.members.sort_by(|a, b| match (routes.get(*a), routes.get(*b)) {
            (Some(a), Some(b)) => a.compare_demands(b),
            _ => Ordering::Equal,
        });
        let first = group.members.first().and_then(|index| routes.get(*index));
        if first.is_some_and(|route| matches!(route.path, PathMatch::Regex(_))) {
            group.before = every.get(host).cloned().unwrap_or_default();
        }
    }
    groups
}

/// What keeps a route from ever matching: one route alone, or the last of several that share out its methods.
struct Shadow {
    by: usize,
    alone: bool,
}

fn shadow(routes: &[RouteMatch], earlier: impl Iterator<Item = usize>, index: usize) -> Option<Shadow> {
    let route = routes.get(index)?;
    let mut methods = MethodSet::new();
    for other in earlier {
        let before = routes.get(other)?;
        let weaker = before.predicates.iter().all(|asked| route.predicates.iter().any(|given| given.implies(asked)));
        if !weaker {
            continue;
        }
        match (&before.methods, &route.methods) {
            (None, _) => return Some(Shadow { by: other, alone: true }),
            (Some(_), None) => {}
            (Some(more), Some(wanted)) => {
                methods.extend(more);
                if methods.covers(wanted) {
                    return Some(Shadow { by: other, alone: more.covers(wanted) });
                }
            }
        }
    }
    None
}

/// Why a route cannot match whatever stands around it.
fn impossible(route: &RouteMatch) -> Option<&'static str> {
    match &route.path {
        PathMatch::Template(pattern) => (pattern.has_encoded_slash() && route.encoded_slash == EncodedSlash::Reject)
            .then_some("this route answers nothing but 400: its path has `%2F`, which it refuses unless it says `encoded_slash: keep`"),
        PathMatch::Regex(expression) => {
            let text = expression.as_str().trim_start_matches('^');
            let relative = text.starts_with(|first: char| first.is_alphanumeric()) && !text.contains('|');
            relative.then_some("this route can never match: a path begins with a slash, this expression does not")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MatchSpec;
    use pylon_core::short::Short;

    fn found(routes: &[&str]) -> Vec<(usize, Option<usize>)> {
        let compile =
            |text: &&str| RouteMatch::compile(&serde_json::from_str::<Short<MatchSpec>>(text).unwrap()).unwrap();
        let table = Table::build(routes.iter().map(compile).collect()).unwrap();
        lint(&table).iter().map(|lint| (lint.route, lint.shadowed_by)).collect()
    }

    #[test]
    fn a_sound_table_has_no_findings() {
        let routes = [r#""GET /a""#, r#""POST /a""#, r#""/a""#, r#""/{x}""#, r#""/{*rest}""#, r#""b.c/a""#];
        assert_eq!(found(&routes), []);
    }

    #[test]
    fn methods_that_others_share_out_are_never_reached() {
        assert_eq!(found(&[r#""GET /{a}""#, r#""POST /{b}""#, r#""GET,POST /{c}""#]), [(2, Some(0))]);
        assert_eq!(found(&[r#""GET,POST /a""#, r#""GET /a""#]), []);
    }

    #[test]
    fn a_wider_test_that_stands_earlier_hides_a_narrower_one() {
        let wide = r#"{"path": "/a", "headers": {"x": {"starts_with": "a"}}}"#;
        let narrow = r#"{"path": "/a", "headers": {"x": "ab"}}"#;
        assert_eq!(found(&[wide, narrow]), [(1, Some(0))]);
        assert_eq!(found(&[narrow, wide]), []);
        let nets =
            [r#"{"path": "/a", "client": "10.0.0.0/8"}"#, r#"{"path": "/a", "client": ["10.1.0.0/16", "10.2.0.1"]}"#];
        assert_eq!(found(&nets), [(1, Some(0))]);
    }

    #[test]
    fn an_expression_behind_a_path_for_everything_is_never_reached() {
        assert_eq!(found(&[r#"{"regex": "/a.*"}"#, r#""/{*rest}""#]), [(0, Some(1))]);
        assert_eq!(found(&[r#"{"regex": "/a.*"}"#, r#""GET /{*rest}""#]), []);
        assert_eq!(found(&[r#"{"regex": "/a.*", "host": "h"}"#, r#""/{*rest}""#]), []);
    }

    #[test]
    fn a_host_that_is_never_reached_is_named() {
        let both = r#"{"host": ["a.b", "c.d"], "path": "/x", "headers": {"x": "1"}}"#;
        let one = r#"{"host": "a.b", "path": "/x", "headers": {"x": "*"}}"#;
        assert_eq!(found(&[one, both]), [(1, Some(0))]);
        let compile =
            |text: &str| RouteMatch::compile(&serde_json::from_str::<Short<MatchSpec>>(text).unwrap()).unwrap();
        let table = Table::build(vec![compile(one), compile(both)]).unwrap();
        assert_eq!(
            lint(&table)[0].why,
            "this route can never match on `a.b`: `a.b/x if header `x` is present` always comes first there"
        );
    }

    #[test]
    fn what_can_never_be_sent_is_named() {
        assert_eq!(found(&[r#""/a%2Fb""#]), [(0, None)]);
        assert_eq!(found(&[r#"{"path": "/a%2Fb", "encoded_slash": "keep"}"#]), []);
        assert_eq!(found(&[r#"{"regex": "users/.*"}"#, r#"{"regex": "^/users"}"#]), [(0, None)]);
    }
}
