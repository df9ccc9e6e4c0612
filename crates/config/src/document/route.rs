//! Reads `routes`: each item part by part, then put together where nothing is missing.

use pylon_core::short::{OneOrMany, Short};
use pylon_core::spec::FieldPath;
use pylon_proxy::action::redirect::RedirectSpec;
use pylon_proxy::action::respond::RespondSpec;
use pylon_proxy::action::split::StickySpec;
use pylon_proxy::fallback::spec::FallbackSpec;
use pylon_proxy::mirror::MirrorSpec;
use pylon_proxy::removal::OnRemoval;
use pylon_proxy::websocket::WebSocketSpec;
use pylon_route::spec::{MatchSpec, RewriteSpec};
use pylon_upstream::breaker::spec::{BreakerSpec, ShortBreaker};
use pylon_upstream::call::hedge::spec::{HedgeSpec, ShortHedge};
use pylon_upstream::call::retry::spec::{RetrySpec, ShortRetry};
use pylon_upstream::timeouts::TimeoutSpec;

use super::{ActionSpec, PolicyEntry, Reader, RouteSpec, names};
use crate::keys;
use crate::suggest;
use crate::tree::{Key, Node, Value};

/// What has been read of a route.
#[derive(Default)]
struct Parts {
    name: Option<String>,
    matching: Option<MatchSpec>,
    actions: Vec<ActionSpec>,
    sticky: Option<StickySpec>,
    websocket: Option<WebSocketSpec>,
    rewrite: Option<RewriteSpec>,
    timeout: Option<TimeoutSpec>,
    breaker: Option<BreakerSpec>,
    retry: Option<RetrySpec>,
    hedge: Option<HedgeSpec>,
    fallback: Option<FallbackSpec>,
    mirror: Option<MirrorSpec>,
    on_removal: Option<OnRemoval>,
    policies: Vec<PolicyEntry>,
    shadow: Option<Vec<String>>,
}

impl Reader<'_> {
    pub(super) fn routes(&mut self, key: &Key, node: &Node, at: &FieldPath) -> Vec<RouteSpec> {
        let Value::Seq(items) = &node.value else {
            if node.value != Value::Null {
                self.complain_at_key(
                    key,
                    at,
                    "`routes` is a list of routes".to_owned(),
                    Some("begin each route with `- match:`".to_owned()),
                );
            }
            return Vec::new();
        };
        items.iter().enumerate().filter_map(|(index, item)| self.route(index, item, &at.clone().index(index))).collect()
    }

    fn route(&mut self, index: usize, node: &Node, at: &FieldPath) -> Option<RouteSpec> {
        if !matches!(node.value, Value::Map(_)) {
            self.complain(
                node,
                at,
                format!("a route is a map, not {}", node.describe()),
                Some("write `match: GET /users` and `forward: users`".to_owned()),
            );
            return None;
        }
        let mut route = Parts::default();
        let before = self.diagnostics.len();
        for (key, node) in node.entries() {
            let at = at.clone().key(&*key.text);
            match &*key.text {
                "name" => route.name = self.part(key, node, &at),
                "match" => route.matching = self.part::<Short<MatchSpec>>(key, node, &at).map(|short| short.0),
                "forward" => route.actions.extend(self.part(key, node, &at).map(ActionSpec::Forward)),
                "split" => route.actions.extend(self.part(key, node, &at).map(ActionSpec::Split)),
                "redirect" => route.actions.extend(
                    self.part::<Short<RedirectSpec>>(key, node, &at).map(|short| ActionSpec::Redirect(short.0)),
                ),
                "respond" => route
                    .actions
                    .extend(self.part::<Short<RespondSpec>>(key, node, &at).map(|short| ActionSpec::Respond(short.0))),
                "sticky" => route.sticky = self.part::<Short<StickySpec>>(key, node, &at).map(|short| short.0),
                "websocket" => {
                    route.websocket = self.part::<Short<WebSocketSpec>>(key, node, &at).map(|short| short.0);
                }
                "rewrite" => route.rewrite = self.part::<Short<RewriteSpec>>(key, node, &at).map(|short| short.0),
                "timeout" => route.timeout = self.part::<Short<TimeoutSpec>>(key, node, &at).map(|short| short.0),
                "breaker" => route.breaker = self.part::<ShortBreaker>(key, node, &at).map(|short| short.0),
                "retry" => route.retry = self.part::<ShortRetry>(key, node, &at).map(|short| short.0),
                "hedge" => route.hedge = self.part::<ShortHedge>(key, node, &at).map(|short| short.0),
                "fallback" => route.fallback = self.fallback(key, node, &at),
                "mirror" => route.mirror = self.part::<Short<MirrorSpec>>(key, node, &at).map(|short| short.0),
                "on_removal" => route.on_removal = self.part(key, node, &at),
                "shadow" => route.shadow = self.part::<OneOrMany<String>>(key, node, &at).map(|list| list.0),
                _ => route.policies.extend(self.policy(key, node, &at, &names(keys::ROUTE))),
            }
        }
        let broken = self.diagnostics.len() > before;
        self.whole_route(index, node, at, route, broken)
    }

    /// Puts the parts of a route together; `broken` holds back what would only follow from parts that are wrong.
    fn whole_route(
        &mut self,
        index: usize,
        node: &Node,
        at: &FieldPath,
        parts: Parts,
        broken: bool,
    ) -> Option<RouteSpec> {
        if node.get("match").is_none() {
            self.complain(
                node,
                at,
                "this route has no `match`".to_owned(),
                Some("write `match: GET /users/{id}`, or `match: \"/{*rest}\"` for everything".to_owned()),
            );
        }
        self.one_action(node, at, broken);
        self.company(node, at);
        let action = parts.actions.into_iter().next()?;
        Some(RouteSpec {
            index,
            name: parts.name,
            matching: parts.matching?,
            action,
            sticky: parts.sticky.unwrap_or_default(),
            websocket: parts.websocket,
            rewrite: parts.rewrite,
            timeout: parts.timeout,
            breaker: parts.breaker,
            retry: parts.retry,
            hedge: parts.hedge,
            fallback: parts.fallback,
            mirror: parts.mirror,
            on_removal: parts.on_removal.unwrap_or_default(),
            policies: parts.policies,
            shadow: parts.shadow,
        })
    }

    /// Complains where a route does not do exactly one thing.
    fn one_action(&mut self, node: &Node, at: &FieldPath, broken: bool) {
        let actions: Vec<_> =
            ["forward", "split", "redirect", "respond"].into_iter().filter(|key| node.get(key).is_some()).collect();
        match actions.as_slice() {
            [_] => {}
            [] if broken => {}
            [] => self.complain(
                node,
                at,
                "this route does nothing".to_owned(),
                Some("add `forward`, `split`, `redirect` or `respond`".to_owned()),
            ),
            several => self.complain(
                node,
                at,
                format!("this route does several things: {}", suggest::listed(several.iter().copied())),
                Some("keep one of them".to_owned()),
            ),
        }
    }

    /// Complains of what means nothing beside the action of its route.
    fn company(&mut self, node: &Node, at: &FieldPath) {
        self.wants_beside(node, at, "sticky", &["split"], None);
        let help = "name the service that speaks WebSocket: `forward: chat`";
        self.wants_beside(node, at, "websocket", &["forward", "split"], Some(help));
        let help = "an answer of the gateway itself does not fail";
        self.wants_beside(node, at, "breaker", &["forward", "split"], Some(help));
        self.wants_beside(node, at, "fallback", &["forward", "split"], Some(help));
        for key in ["mirror", "retry", "hedge"] {
            self.wants_beside(node, at, key, &["forward", "split"], None);
        }
    }

    /// Complains of `key` where none of those stands beside it that give it a meaning.
    fn wants_beside(&mut self, node: &Node, at: &FieldPath, key: &str, others: &[&str], help: Option<&str>) {
        let Some((written, _)) = node.entry(key) else { return };
        if others.iter().any(|other| node.get(other).is_some()) {
            return;
        }
        let written = written.clone();
        let others: Vec<_> = others.iter().map(|other| format!("`{other}`")).collect();
        let problem = format!("`{key}` means nothing without {}", others.join(" or "));
        self.complain_at_key(&written, &at.clone().key(key), problem, help.map(str::to_owned));
    }
}
