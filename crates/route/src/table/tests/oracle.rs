//! Holds the tree against the naive way: every route by itself, then sorted by the documented order.

use std::cmp::Ordering;

use http::{HeaderName, HeaderValue};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Ask, Found, Head, HostPattern, MethodSet, Outcome, PathMatch, PathsSpec, RouteMatch, Stop, Table, ask, compile,
};
use crate::explain::Verdict;
use crate::matching::Mismatch;
use crate::normalise::EncodedSlash;

fn oracle(table: &Table, head: &Head<'_>) -> Outcome {
    let ignore_case = table.options().ignore_case;
    let mut matching: Vec<((u8, usize), usize)> = Vec::new();
    let mut allowed = MethodSet::new();
    for (index, route) in table.routes().iter().enumerate() {
        match route.mismatch(head, ignore_case) {
            None => {
                let host =
                    route.hosts().iter().filter(|host| host.takes(head.host)).map(HostPattern::rank).max().unwrap();
                matching.push((host, index));
            }
            Some(Mismatch::Method { wanted }) if route.predicates().iter().all(|predicate| predicate.check(head)) => {
                allowed.extend(&wanted);
            }
            Some(_) => {}
        }
    }
    matching.sort_by(|(host, index), (other_host, other_index)| {
        let (route, other) = (&table.routes()[*index], &table.routes()[*other_index]);
        let paths = match (route.path(), other.path()) {
            (PathMatch::Template(a), PathMatch::Template(b)) if ignore_case => a.folded().compare(&b.folded()),
            (PathMatch::Template(a), PathMatch::Template(b)) => a.compare(b),
            (PathMatch::Template(_), PathMatch::Regex(_)) => Ordering::Less,
            (PathMatch::Regex(_), PathMatch::Template(_)) => Ordering::Greater,
            (PathMatch::Regex(_), PathMatch::Regex(_)) => Ordering::Equal,
        };
        other_host.cmp(host).then(paths).then(route.compare_demands(other)).then(index.cmp(other_index))
    });
    match matching.first() {
        Some((_, index)) => {
            let route = &table.routes()[*index];
            let captures = route.path().matches(head.path, ignore_case).unwrap();
            let stop = (route.encoded_slash() == EncodedSlash::Reject && head.path.contains("%2F"))
                .then_some(Stop::EncodedSlash);
            Outcome::Found(Found { route: *index, captures, stop })
        }
        None if !allowed.is_empty() => Outcome::MethodNotAllowed(allowed),
        None => Outcome::NotFound,
    }
}

fn route_texts() -> impl Strategy<Value = String> {
    let segment =
        proptest::sample::select(vec!["a", "b", "A", "a%3Ab", "{p}", "{p}.x", "a{p}", "a{p}.x", "{p}%3Ab", ""]);
    let path = (proptest::collection::vec(segment, 0..4), proptest::bool::ANY).prop_map(|(segments, rest)| {
        let mut all: Vec<String> = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            if !segment.is_empty() || (i + 1 == segments.len() && !rest) {
                all.push(segment.replace("{p}", &format!("{{p{i}}}")));
            }
        }
        if rest {
            all.push("{*r}".to_owned());
        }
        format!("/{}", all.join("/"))
    });
    let regex = proptest::sample::select(vec!["/a.*", "/[ab]/(?<x>.*)", "/.*"]);
    let place = prop_oneof![
        8 => path.prop_map(|path| format!(r#""path": "{path}""#)),
        1 => regex.prop_map(|regex| format!(r#""regex": "{regex}""#)),
    ];
    let host = proptest::sample::select(vec![
        "",
        r#", "host": "a.b.c""#,
        r#", "host": "*.b.c""#,
        r#", "host": ["*.c", "a.b.c"]"#,
    ]);
    let methods = proptest::sample::select(vec![
        "",
        "",
        r#", "methods": "GET""#,
        r#", "methods": ["GET", "POST"]"#,
        r#", "methods": "PUT""#,
    ]);
    let headers = proptest::sample::select(vec![
        "",
        "",
        r#", "headers": {"x": "1"}"#,
        r#", "headers": {"x": "*"}"#,
        r#", "headers": {"x": {"absent": true}, "y": "1"}"#,
    ]);
    (place, host, methods, headers)
        .prop_map(|(place, host, methods, headers)| format!("{{{place}{host}{methods}{headers}}}"))
}

/// A table of what was drawn, duplicates left out.
fn tables() -> impl Strategy<Value = Table> {
    (proptest::collection::vec(route_texts(), 1..24), proptest::bool::ANY).prop_map(|(texts, ignore_case)| {
        let options = PathsSpec { ignore_case };
        let mut routes: Vec<RouteMatch> = texts.iter().map(|text| compile(text)).collect();
        loop {
            match Table::build_with(routes.clone(), options) {
                Ok(table) => return table,
                Err(duplicates) => {
                    let mut seconds: Vec<usize> = duplicates.iter().map(|duplicate| duplicate.second).collect();
                    seconds.dedup();
                    seconds.into_iter().rev().for_each(|second| drop(routes.remove(second)));
                }
            }
        }
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    let segment = proptest::sample::select(vec![
        "a", "b", "A", "a:b", "a%3Ab", "a.x", "ab.x", ".x", "b;v=1", "a;", "a%2Fb", "ab", "",
    ]);
    let path = proptest::collection::vec(segment, 1..5).prop_map(|segments| format!("/{}", segments.join("/")));
    let host = proptest::sample::select(vec!["", "a.b.c", "x.b.c", "x.y.c", "b.c", "c"]);
    let method = proptest::sample::select(vec!["GET", "HEAD", "POST", "DELETE"]);
    let header = proptest::sample::select(vec!["", "x", "y", "xy"]);
    (path, host, method, header).prop_map(|(path, host, method, header)| {
        let mut asked = ask(&format!("{method} {host}{path}"));
        for name in header.chars().map(String::from) {
            asked.headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
        }
        asked
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    #[test]
    fn the_tree_finds_what_trying_every_route_finds(table in tables(), asks in proptest::collection::vec(asks(), 16)) {
        for asked in asks {
            let (found, wanted) = (table.find(&asked.head()), oracle(&table, &asked.head()));
            match (&found, &wanted) {
                (Outcome::MethodNotAllowed(ours), Outcome::MethodNotAllowed(theirs)) => {
                    prop_assert!(ours.covers(theirs) && theirs.covers(ours));
                }
                _ => prop_assert_eq!(found, wanted, "{} {:?}{}", asked.method, asked.host, asked.path),
            }
        }
    }

    #[test]
    fn explain_and_find_never_disagree(table in tables(), asks in proptest::collection::vec(asks(), 16)) {
        for asked in asks {
            let explanation = table.explain(&asked.head());
            let found = table.find(&asked.head());
            let wins = explanation.candidates.iter().find(|candidate| candidate.verdict == Verdict::Wins);
            let route = if let Outcome::Found(found) = &found { Some(found.route) } else { None };
            prop_assert_eq!(wins.map(|candidate| candidate.route), route);
            prop_assert_eq!(explanation.outcome, found);
        }
    }
}
