//! What holds for the calls of a route, in words: timers, and what the gateway adds to each attempt.

use std::fmt::{self, Write as _};
use std::time::Duration;

use pylon_core::units::Span;
use pylon_proxy::action::Action;
use pylon_proxy::action::forward::Forward;
use pylon_upstream::timeouts::Timeouts;

/// One line each, and one for each upstream where they differ.
pub(super) fn write(out: &mut String, action: &Action) -> fmt::Result {
    let forwards: Vec<&Forward> = match action {
        Action::Forward(forward) => vec![forward],
        Action::Split(split) => split.forwards().collect(),
        _ => return Ok(()),
    };
    let parts = |words: fn(&Forward) -> Option<String>| {
        forwards.iter().map(|forward| (forward.upstream.name(), words(forward))).collect::<Vec<_>>()
    };
    for (key, parts) in [("timers", parts(|forward| Some(timers(forward)))), ("adds", parts(additions))] {
        let same = parts.windows(2).all(|two| matches!(two, [(_, one), (_, other)] if one == other));
        match parts.first() {
            Some((_, Some(words))) if same => writeln!(out, "{key:7} {words}")?,
            _ if same => {}
            _ => {
                for (name, words) in &parts {
                    writeln!(out, "{key:7} to {}: {}", name.as_str(), words.as_deref().unwrap_or("nothing"))?;
                }
            }
        }
    }
    Ok(())
}

/// `connect 3s, response 30s, idle 1m`
fn timers(forward: &Forward) -> String {
    let Timeouts { connect, first_byte, response, idle, total } = forward.options.timeouts;
    let all = [
        ("connect", Some(connect)),
        ("first_byte", first_byte),
        ("response", Some(response)),
        ("idle", Some(idle)),
        ("total", total),
    ];
    let written = all.iter().filter_map(|(name, span)| span.map(|span| format!("{name} {}", self::span(span))));
    written.collect::<Vec<_>>().join(", ")
}

/// `the gateway's own credential (bearer), edits of x-api-key, cookie`
fn additions(forward: &Forward) -> Option<String> {
    let outbound = forward.upstream.view().outbound?;
    let mut words = String::new();
    if let Some(credential) = outbound.credential {
        // Writing to a string does not fail.
        let _ = write!(words, "the gateway's own credential ({credential})");
    }
    if !outbound.headers.is_empty() {
        let and = if words.is_empty() { "" } else { ", " };
        let _ = write!(words, "{and}edits of {}", outbound.headers.join(", "));
    }
    Some(words)
}

/// As it would be written.
fn span(span: Duration) -> Span {
    Span::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
