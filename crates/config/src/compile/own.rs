//! From the routes that policies contribute to routes of the snapshot. They stand behind those of the document.

use std::sync::Arc;

use pylon_core::host::HostPattern;
use pylon_core::names::RouteId;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_policy::own::{Hosts, OwnRoute};
use pylon_policy::registry::{AnySpec, Phase, entry};
use pylon_proxy::action::Action;
use pylon_proxy::action::own::Own;
use pylon_proxy::snapshot::Route;
use pylon_route::matching::RouteMatch;
use pylon_route::spec::MatchSpec;

use super::{Compiler, Origin};

/// A route that policies contribute, be it several at once.
pub(super) struct Contributed {
    route: OwnRoute,
    hosts: Vec<HostPattern>,
    /// The policy that said so first, or what in it says where the route is.
    at: FieldPath,
}

impl Compiler<'_> {
    /// Takes up what the policies of a route on these hosts contribute.
    pub(super) fn contributed(&mut self, hosts: &[HostPattern], policies: &[(AnySpec, FieldPath)]) {
        for route in self.around.own.take() {
            let Some((_, at)) = policies.iter().find(|(spec, _)| spec.key() == route.by) else { continue };
            let hosts = match route.hosts {
                Hosts::OfHolders => hosts,
                Hosts::All => &[HostPattern::Any],
            };
            let same = |known: &&mut Contributed| {
                let known = &known.route;
                known.path == route.path
                    && known.methods == route.methods
                    && Arc::ptr_eq(&known.handler, &route.handler)
            };
            match self.own.iter_mut().find(same) {
                Some(known) => {
                    known
                        .hosts
                        .extend(hosts.iter().filter(|host| !known.hosts.contains(host)).cloned().collect::<Vec<_>>());
                }
                None => {
                    let at = route.at.clone().below(at);
                    self.own.push(Contributed { route, hosts: hosts.to_vec(), at });
                }
            }
        }
    }

    /// The routes of policies, in a document whose routes match so.
    pub(super) fn own_routes(&mut self, document: &[RouteMatch]) -> Vec<(Route, Origin, RouteMatch)> {
        let mut all: Vec<(Route, Origin, RouteMatch)> = Vec::new();
        for Contributed { route, hosts, at } in std::mem::take(&mut self.own) {
            let matching = match matching(&route, reached(&hosts, document)) {
                Ok(matching) => matching,
                Err(errors) => {
                    self.note(&at, errors);
                    continue;
                }
            };
            let taken = self.is_taken(&matching, &at, &route, document);
            let other = all.iter().find(|(_, _, other)| matching.meets(other, self.document.paths.ignore_case));
            if let Some((_, other, _)) = other {
                let problem = format!("`{}` answers here, and so does what is written at {}", route.by, other.at);
                let error = SpecError::new(FieldPath::root(), problem);
                self.note(&at, [error.help("write both in the same way, or give one of them another path")]);
            } else if !taken {
                all.extend(self.own_route(route, at).map(|(route, origin)| (route, origin, matching)));
            }
        }
        all
    }

    /// Whether a route of the document has the same place, which is an error.
    fn is_taken(&mut self, matching: &RouteMatch, at: &FieldPath, own: &OwnRoute, document: &[RouteMatch]) -> bool {
        let ignore_case = self.document.paths.ignore_case;
        let Some(index) = document.iter().position(|other| matching.meets(other, ignore_case)) else { return false };
        let problem = format!("`{}` answers at `{}`, which a route of the document takes", own.by, own.path);
        let error = self.source.error(&SpecError::new(at.clone(), problem));
        let other = FieldPath::root().key("routes").index(index).key("match");
        let (file, span) = crate::locate::locate(&self.source.root, &other).mark();
        let error = error.related(self.source.place(file, span), "this route has the same path");
        self.wrong.push(error.help("remove that route, or give one of the two another path"));
        true
    }

    /// The route itself. It meets the policies of `defaults`, but for those that ask who is there.
    fn own_route(&mut self, own: OwnRoute, at: FieldPath) -> Option<(Route, Origin)> {
        let asks = |spec: &AnySpec| {
            let phase = entry(spec.key()).map(|entry| entry.phase);
            matches!(phase, Some(Phase::Identify | Phase::Authorize))
        };
        let defaults = self.document.defaults.policies.iter();
        let policies = defaults.filter_map(|entry| Some((entry.spec.clone()?, entry.at.clone())));
        let policies = policies.filter(|(spec, _)| !asks(spec)).collect();
        let (pipeline, policies, shadow) = self.pipeline_of(policies, None, &FieldPath::root().key("defaults"))?;
        // What they contribute they have contributed before.
        self.around.own.take();
        let id = RouteId::from(format!("own:{}", own.name));
        let series = self.cx.metrics.route(&id);
        let action = format!("answer by `{}` itself", own.by);
        let origin = Origin { at, policies, shadow, action };
        let (rewrite, fallback, mirror, websocket, streams) = (None, None, None, None, None);
        let action = Action::Own(Own::new(own.handler, own.methods));
        Some((Route { id, series, pipeline, rewrite, action, fallback, mirror, websocket, streams }, origin))
    }
}

/// These hosts, and all of the document that lie within them: a route of a host in particular comes before those of more.
fn reached(hosts: &[HostPattern], document: &[RouteMatch]) -> Vec<HostPattern> {
    let mut all = hosts.to_vec();
    for host in document.iter().flat_map(RouteMatch::hosts) {
        if !all.contains(host) && hosts.iter().any(|outer| outer.covers(host)) {
            all.push(host.clone());
        }
    }
    all
}

fn matching(route: &OwnRoute, hosts: Vec<HostPattern>) -> Result<RouteMatch, Vec<SpecError>> {
    let here = |problem: String| SpecError::new(FieldPath::root(), problem);
    let spec = MatchSpec {
        methods: OneOrMany(route.methods.iter().map(|&method| method.to_owned()).collect()),
        host: OneOrMany(hosts.iter().map(ToString::to_string).collect()),
        path: Some(route.path.clone()),
        ..MatchSpec::default()
    };
    let matching = RouteMatch::compile(&spec);
    // The match is not what a person wrote: its errors are told where the path was.
    let matching = matching.map_err(|errors| {
        errors.into_iter().map(|error| SpecError { at: FieldPath::root(), ..error }).collect::<Vec<_>>()
    })?;
    if matching.path().names().is_empty() {
        return Ok(matching);
    }
    let error = here(format!("`{}` has variable parts, and this is one place", route.path));
    Err(vec![error.help("write a path such as `/.well-known/jwks.json`")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::render_all;
    use crate::document::{self, Document};
    use crate::load::Source;
    use pylon_core::carry::Carry;
    use pylon_core::exchange::Exchange;
    use pylon_core::{Request, Response};
    use pylon_net::resolve::Resolver;
    use pylon_observe::metrics::Metrics;
    use pylon_policy::consumers::KeyHash;
    use pylon_policy::own::Handler;
    use pylon_policy::policy::{Around, Compiling, Step};

    const KEYS: &str = "/.well-known/keys.json";

    #[derive(Debug)]
    struct Keys;

    impl Handler for Keys {
        fn answer<'a>(&'a self, _: &'a mut Request, _: &'a mut Exchange) -> Step<'a, Response> {
            Step::Done(Ok(Response::default()))
        }
    }

    fn own(path: &str, hosts: Hosts, handler: &Arc<Keys>) -> OwnRoute {
        let (at, handler) = (FieldPath::root(), Arc::clone(handler) as Arc<dyn Handler>);
        OwnRoute { by: "cors", name: "keys", path: path.to_owned(), at, methods: &["GET"], hosts, handler }
    }

    /// What comes of own routes that the policy of the first route of a document contributes: id, match and policies of
    /// each, or all that is wrong.
    fn of(text: &str, contributed: Vec<OwnRoute>) -> Result<Vec<String>, String> {
        let key = KeyHash::of(b"key-of-app").to_string();
        let source = Source::from_text("t.yaml", &text.replace("KEY", &key)).unwrap();
        let (document, wrong) = document::read(&source);
        assert!(wrong.is_empty(), "{}", render_all(&wrong, false));
        with(&source, &document, |compiler| {
            compiler.consumers();
            let (_, origins, matches) = compiler.routes();
            for own in contributed {
                Compiling { carry: compiler.cx.carry, around: &compiler.around }.own_route(own);
            }
            compiler.contributed(matches[0].hosts(), &origins[0].policies);
            let all = compiler.own_routes(&matches);
            let told = |(route, origin, matching): &(Route, Origin, RouteMatch)| {
                let keys: Vec<_> = route.pipeline.keys().map(|(key, _)| key).collect();
                format!("{} {matching} {} {}", route.id, keys.join(","), origin.at)
            };
            let wrong = render_all(&compiler.wrong, false);
            if wrong.is_empty() { Ok(all.iter().map(told).collect()) } else { Err(wrong) }
        })
    }

    fn with<T>(source: &Source, document: &Document, work: impl FnOnce(&mut Compiler<'_>) -> T) -> T {
        let resolver = Resolver::new(&["127.0.0.1:53".parse().unwrap()]).unwrap();
        let secrets = crate::plan::PlainSecrets::Refused;
        let agents = crate::discovery::compile(source, document, &resolver, secrets).unwrap();
        let (carry, metrics) = (Carry::default(), Metrics::new(now()));
        let cx = super::super::Context {
            carry: &carry,
            metrics: &metrics,
            resolver: &resolver,
            agents: &agents,
            pseudonym: "p",
            secrets,
            state: None,
        };
        let around = Around::new(Arc::default(), resolver.clone(), secrets.reveal());
        let (upstreams, own, wrong) = (std::collections::BTreeMap::new(), Vec::new(), Vec::new());
        work(&mut Compiler { source, document, cx: &cx, around, upstreams, own, wrong })
    }

    #[expect(clippy::disallowed_methods, reason = "metrics want a moment to begin at, and no test looks at it")]
    fn now() -> std::time::Instant {
        std::time::Instant::now()
    }

    const DOCUMENT: &str = "
defaults: { request_limits: { body: 1MiB }, anonymous: allow, api_key: true }
consumers: { app: { keys: [KEY] } }
routes:
  - { match: '*.a.com/{*rest}', cors: '*', respond: 200 }
  - { match: 'b.a.com/{*rest}', respond: 200 }
  - { match: 'POST c.com/.well-known/keys.json', respond: 200 }
";

    #[test]
    fn a_route_of_a_policy_stands_on_each_host_of_its_holders_and_meets_no_identity() {
        let keys = Arc::new(Keys);
        assert_eq!(
            of(DOCUMENT, vec![own(KEYS, Hosts::OfHolders, &keys), own(KEYS, Hosts::OfHolders, &keys)]),
            Ok(vec![format!("own:keys GET *.a.com,b.a.com{KEYS} request_limits routes[0].cors")])
        );
        assert_eq!(
            of(DOCUMENT, vec![own(KEYS, Hosts::All, &keys)]),
            Ok(vec![format!("own:keys GET *,*.a.com,b.a.com,c.com{KEYS} request_limits routes[0].cors")])
        );
    }

    #[test]
    fn what_a_route_of_the_document_has_is_not_taken_from_it() {
        let taken = DOCUMENT.replace("'POST c.com", "'c.com");
        let wrong = of(&taken, vec![own(KEYS, Hosts::All, &Arc::new(Keys))]).unwrap_err();
        assert!(
            wrong.contains("`cors` answers at `/.well-known/keys.json`, which a route of the document takes"),
            "{wrong}"
        );
        assert!(of(&taken, vec![own(KEYS, Hosts::OfHolders, &Arc::new(Keys))]).is_ok());
    }

    #[test]
    fn two_that_answer_differently_at_one_place_are_an_error_and_so_is_a_path_that_is_none() {
        let (one, other) = (Arc::new(Keys), Arc::new(Keys));
        let wrong = of(DOCUMENT, vec![own(KEYS, Hosts::All, &one), own(KEYS, Hosts::OfHolders, &other)]).unwrap_err();
        assert!(wrong.contains("`cors` answers here, and so does what is written at routes[0].cors"), "{wrong}");
        assert!(of(DOCUMENT, vec![own("/a", Hosts::All, &one), own("/b", Hosts::All, &other)]).is_ok());
        let wrong = of(DOCUMENT, vec![own("/{x}", Hosts::All, &one), own("y", Hosts::All, &one)]).unwrap_err();
        assert!(wrong.contains("`/{x}` has variable parts") && wrong.contains("a path begins with a slash"), "{wrong}");
    }
}
