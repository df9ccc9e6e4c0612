//! Any text as a path, a template and a rewrite: normal forms are stable, tree and single comparison agree.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use pylon_core::short::FromScalar;
use pylon_route::matching::RouteMatch;
use pylon_route::normalise::{EncodedSlash, Parameters, PathRules, has_encoded_slash, normalise};
use pylon_route::predicate::Head;
use pylon_route::rewrite::Rewrite;
use pylon_route::spec::{MatchSpec, RewriteSpec};
use pylon_route::spec::PathsSpec;
use pylon_route::table::{Outcome, Table};

fuzz_target!(|input: (u8, &str, &str, &str)| {
    let (bits, path, template, rewrite) = input;
    let rules = PathRules {
        merge_slashes: bits & 1 == 0,
        encoded_slash: if bits & 2 == 0 { EncodedSlash::Keep } else { EncodedSlash::Reject },
        parameters: if bits & 4 == 0 { Parameters::Keep } else { Parameters::Reject },
    };
    let Ok(normal) = normalise(path, rules) else { return };
    assert_eq!(normalise(&normal, rules).as_deref(), Ok(&*normal));
    assert!(normal.split('/').all(|segment| segment != "." && segment != ".."));
    assert!(rules.encoded_slash == EncodedSlash::Keep || !has_encoded_slash(&normal));

    let spec = MatchSpec { path: Some(template.to_owned()), ..MatchSpec::default() };
    let Ok(route) = RouteMatch::compile(&spec) else { return };
    let text = route.to_string();
    let again = RouteMatch::compile(&MatchSpec { path: Some(text.clone()), ..MatchSpec::default() });
    assert_eq!(again.map(|route| route.to_string()), Ok(text));

    let options = PathsSpec { ignore_case: bits & 8 == 0 };
    let headers = HeaderMap::new();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let head = Head { host: None, path: &normal, method: &Method::GET, headers: &headers, query: None, client };
    let Ok(table) = Table::build_with(vec![route.clone()], options) else { return };
    let outcome = table.find(&head);
    assert_eq!(table.explain(&head).outcome, outcome);
    assert_eq!(matches!(outcome, Outcome::Found(_)), route.mismatch(&head, options.ignore_case).is_none());

    let Outcome::Found(found) = outcome else { return };
    let Ok(spec) = RewriteSpec::from_scalar(rewrite) else { return };
    let Ok(rewrite) = Rewrite::compile(&spec, &route) else { return };
    if let Ok(target) = rewrite.apply(&normal, None, &found.captures) {
        assert_eq!(normalise(target.path(), PathRules::SERVE).as_deref(), Ok(target.path()));
    }
});
