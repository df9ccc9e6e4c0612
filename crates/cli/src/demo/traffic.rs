//! Live traffic: one aligned line for each exchange, coloured by its status where a terminal shows it.
//!
//! Times of day are local. Columns: time, method, path, status, duration, route, upstream, note. What does not fit its
//! column is cut and marked; the note comes last and is never cut.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) const BOLD: &str = "1";
pub(super) const CYAN: &str = "36";
pub(super) const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// More lines than this at once nobody reads: under load the rest is counted instead.
const MOST_AT_ONCE: usize = 40;

/// One exchange that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    /// When the request came.
    pub(crate) time: Timestamp,
    /// The method of the client.
    pub(crate) method: String,
    /// The normalised path, with its query if there is one.
    pub(crate) path: String,
    /// The status that was sent; 499 when the client went away before.
    pub(crate) status: u16,
    /// From the head of the request to the last byte of the answer.
    pub(crate) duration: Duration,
    /// The id of the route.
    pub(crate) route: String,
    /// The upstream that was called, if one was.
    pub(crate) upstream: Option<String>,
    /// What else is worth knowing: the code of the refusal, the timer that fired.
    pub(crate) note: Option<String>,
}

/// What has happened since the last look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    /// The exchanges, oldest first.
    pub(crate) exchanges: Vec<Recent>,
    /// How many more there were that nobody remembers.
    pub(crate) missed: u64,
}

/// Turns exchanges into lines.
#[derive(Debug)]
pub(crate) struct Traffic {
    colour: bool,
    zone: TimeZone,
    headed: bool,
}

impl Traffic {
    /// Lines with colour or without.
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour, zone: TimeZone::system(), headed: false }
    }

    /// The lines of `batch`, each with its end; nothing if nothing happened. The first begin with the column titles.
    pub(crate) fn lines(&mut self, batch: Batch) -> String {
        let mut lines = String::new();
        let beyond = batch.exchanges.len().saturating_sub(MOST_AT_ONCE);
        let missed = batch.missed.saturating_add(beyond as u64);
        if !self.headed && (missed > 0 || !batch.exchanges.is_empty()) {
            self.headed = true;
            let titles = columns(["time", "method", "path", "code", "duration", "route", "upstream"], "note");
            lines.push_str(&paint(self.colour, DIM, &titles));
            lines.push('\n');
        }
        if missed > 0 {
            lines.push_str(&paint(self.colour, DIM, &format!("… and {missed} more")));
            lines.push('\n');
        }
        // The latest are shown, since they stand next to what comes.
        for exchange in batch.exchanges.iter().skip(beyond) {
            lines.push_str(&self.line(exchange));
            lines.push('\n');
        }
        lines
    }

    /// One exchange as one line, without its end.
    pub(crate) fn line(&self, exchange: &Recent) -> String {
        let time = exchange.time.to_zoned_datetime(self.zone.clone()).strftime("%H:%M:%S").to_string();
        let note = visible(exchange.note.as_deref().unwrap_or_default());
        let line = columns(
            [
                &time,
                &visible(&exchange.method),
                &visible(&exchange.path),
                &exchange.status.to_string(),
                &span(exchange.duration),
                &visible(&exchange.route),
                &visible(exchange.upstream.as_deref().unwrap_or("-")),
            ],
            &note,
        );
        paint(self.colour, colour_of(exchange.status), &line)
    }
}

/// Puts `text` between escape sequences where `colour` says so.
pub(super) fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Aligns the columns; the duration to the right, since it is read as a number.
fn columns([time, method, path, status, duration, route, upstream]: [&str; 7], note: &str) -> String {
    let mut line = String::new();
    for (text, width) in [(time, 8), (method, 7), (path, 28), (status, 4)] {
        let _ = write!(line, "{:<width$}  ", cut(text, width));
    }
    let _ = write!(line, "{duration:>8}  ");
    for (text, width) in [(route, 28), (upstream, 18)] {
        let _ = write!(line, "{:<width$}  ", cut(text, width));
    }
    line.push_str(note);
    line.truncate(line.trim_end().len());
    line
}

/// At most `width` characters of `text`; what is left out is marked.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `text` with everything replaced that could move a terminal's cursor: it may come from a stranger.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A duration in three digits or so.
fn span(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

fn colour_of(status: u16) -> &'static str {
    match status {
        200..300 => GREEN,
        300..400 => CYAN,
        400..500 => YELLOW,
        500.. => RED,
        _ => DIM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exchange(path: &str, status: u16) -> Recent {
        Recent {
            time: "1970-01-01T03:00:25.250Z".parse().unwrap(),
            method: "GET".into(),
            path: path.into(),
            status,
            duration: Duration::from_micros(1840),
            route: "GET /users/{id}".into(),
            upstream: Some("users".into()),
            note: None,
        }
    }

    fn plain() -> Traffic {
        Traffic { colour: false, zone: TimeZone::UTC, headed: false }
    }

    #[test]
    fn lines_stand_in_columns_below_their_titles() {
        let mut slow = exchange("/recommendations/1?because=this-is-a-long-query", 504);
        slow.duration = Duration::from_millis(600);
        slow.note = Some("upstream.timeout: response".into());
        let mut own = exchange("/hello", 200);
        own.upstream = None;
        let batch = Batch { exchanges: vec![exchange("/users/1", 200), slow, own], missed: 0 };
        let expected = [
            "time      method   path                          code  duration  route                         upstream            note",
            "03:00:25  GET      /users/1                      200     1.8 ms  GET /users/{id}               users",
            "03:00:25  GET      /recommendations/1?because=…  504     600 ms  GET /users/{id}               users               upstream.timeout: response",
            "03:00:25  GET      /hello                        200     1.8 ms  GET /users/{id}               -",
        ];
        let mut traffic = plain();
        assert_eq!(traffic.lines(batch).lines().collect::<Vec<_>>(), expected);
        assert_eq!(traffic.lines(Batch { exchanges: vec![exchange("/users/1", 200)], missed: 0 }).lines().count(), 1);
    }

    #[test]
    fn without_traffic_nothing_is_said() {
        assert_eq!(plain().lines(Batch::default()), "");
    }

    #[test]
    fn under_load_the_latest_are_shown_and_the_rest_is_counted() {
        let exchanges = (0..100).map(|n| exchange(&format!("/{n}"), 200)).collect();
        let lines = plain().lines(Batch { exchanges, missed: 1000 });
        assert_eq!(lines.lines().nth(1), Some("… and 1060 more"));
        assert_eq!(lines.lines().count(), 2 + MOST_AT_ONCE);
        assert!(lines.lines().last().unwrap().contains("  /99 "));
    }

    #[test]
    fn the_colour_tells_the_class_of_the_status() {
        let traffic = Traffic { colour: true, ..plain() };
        for (status, code) in [(204, GREEN), (308, CYAN), (403, YELLOW), (503, RED)] {
            let line = traffic.line(&exchange("/", status));
            assert!(line.starts_with(&format!("\x1b[{code}m")) && line.ends_with("\x1b[0m"), "{line:?}");
        }
    }

    #[test]
    fn durations_read_well_from_microseconds_to_minutes() {
        let spans = [40, 9_960, 10_400, 999_400, 1_200_000, 61_000_000].map(|us| span(Duration::from_micros(us)));
        assert_eq!(spans, ["0.0 ms", "10.0 ms", "10 ms", "999 ms", "1.20 s", "61.00 s"]);
    }

    proptest! {
        #[test]
        fn nothing_that_a_stranger_sends_reaches_the_terminal_as_a_control(text in ".*", status in any::<u16>()) {
            let mut recent = exchange(&text, status);
            (recent.method, recent.route) = (text.clone(), text.clone());
            (recent.upstream, recent.note) = (Some(text.clone()), Some(text));
            let line = plain().line(&recent);
            prop_assert!(line.chars().all(|c| c == '…' || c == ' ' || c.is_ascii_graphic()), "{:?}", line);
        }
    }
}
