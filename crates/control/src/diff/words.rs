//! A difference in words, for people.

use std::fmt;

use serde_json::Value;

use super::traffic::{Aspect, Group, Meeting, Traffic};
use super::{Change, Diff, KeyChange, Kind, Part};

/// The longest value that is shown whole, in characters.
const VALUE: usize = 100;

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "--- {}  {}", self.old.document, self.old.hash)?;
        writeln!(f, "+++ {}  {}", self.new.document, self.new.hash)?;
        for change in &self.changes {
            write!(f, "\n{change}")?;
        }
        match self.changes.len() {
            0 if self.old.hash == self.new.hash => writeln!(f, "\nnothing changes")?,
            0 => writeln!(f, "\nnothing changes: the two are written differently and mean the same")?,
            1 => writeln!(f, "\n1 part changes")?,
            parts => writeln!(f, "\n{parts} parts change")?,
        }
        self.traffic.as_ref().map_or(Ok(()), |traffic| write!(f, "\n{traffic}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed | Kind::Moved => '~',
        };
        match self.part {
            Part::Listener => write!(f, "{mark} listener {}", self.id)?,
            Part::Upstream => write!(f, "{mark} upstream {}", self.id)?,
            Part::Route => write!(f, "{mark} route {}", self.id)?,
            Part::Setting | Part::Defaults => write!(f, "{mark} {}", self.id)?,
        }
        match self.what.as_deref() {
            Some(what) if !what.is_empty() => writeln!(f, ": {what}")?,
            _ => writeln!(f)?,
        }
        let width = self.keys.iter().map(|key| key.key.chars().count()).max().unwrap_or(0);
        self.keys.iter().try_for_each(|key| writeln!(f, "    {}", Padded(key, width)))
    }
}

struct Padded<'a>(&'a KeyChange, usize);

impl fmt::Display for Padded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(KeyChange { key, old, new, routes }, width) = self;
        write!(f, "{key:width$}  {} → {}", value(old), value(new))?;
        match routes {
            Some(1) => write!(f, "  (1 route inherits it)"),
            Some(routes) => write!(f, "  ({routes} routes inherit it)"),
            None => Ok(()),
        }
    }
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // A value is from a document: what a terminal would act on is shown as it is written in Rust.
    let text: String =
        text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect();
    if text.chars().count() <= VALUE { text } else { text.chars().take(VALUE).chain(['…']).collect() }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, changed, .. } = self;
        writeln!(f, "of {requests} requests in the log {changed} would be answered otherwise")?;
        for group in &self.groups {
            write!(f, "\n{group}")?;
        }
        let notes = [
            (self.untold, "requests that change in further ways, which are not told"),
            (self.unreadable, "lines that could not be read, or that the log has cut"),
            (self.without_request, "lines about connections without a request"),
            (
                self.unlike_log,
                "requests that met another route than by the old document: it was another one, or a route looks at \
                 what the log does not tell",
            ),
        ];
        let told: Vec<_> = notes.into_iter().filter(|(count, _)| *count > 0).collect();
        if !told.is_empty() {
            writeln!(f)?;
        }
        told.into_iter().try_for_each(|(count, note)| writeln!(f, "{count:>8}  {note}"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<_> = self.changes.iter().map(|aspect| self.aspect(*aspect)).collect();
        writeln!(f, "{:>8}  {}", self.requests, what.join(", "))?;
        let example = &self.example;
        let host = example.host.as_deref().unwrap_or_default();
        let (path, client, time) = (value(&example.path.as_str().into()), &example.client, &example.time);
        writeln!(f, "          such as {} {host}{path} from {client} at {time}", example.method)?;
        writeln!(f, "          old  {}", self.old)?;
        writeln!(f, "          new  {}", self.new)
    }
}

impl Group {
    fn aspect(&self, aspect: Aspect) -> String {
        match aspect {
            Aspect::Route => "another route".to_owned(),
            Aspect::Policies => format!("other policies ({})", self.policies.join(", ")),
            Aspect::Upstream if self.old.upstream == self.new.upstream => "the upstream is set otherwise".to_owned(),
            Aspect::Upstream => "another upstream".to_owned(),
            Aspect::Rewrite => "another path or host for the upstream".to_owned(),
            Aspect::Answer => "another answer".to_owned(),
            Aspect::Refusal if self.new.refusal.is_none() => "no longer refused".to_owned(),
            Aspect::Refusal if self.old.refusal.is_none() => "refused".to_owned(),
            Aspect::Refusal => "refused for another reason".to_owned(),
        }
    }
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.route, self.action)?;
        match (&self.upstream, self.refusal) {
            (_, Some(code)) => write!(f, " ({code})"),
            (Some(upstream), None) if self.action.starts_with("split") => write!(f, " (to {upstream})"),
            _ => Ok(()),
        }
    }
}
