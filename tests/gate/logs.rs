//! Failure 41: a log that nobody reads eats the memory or holds the traffic up. And what a line of it tells.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::wait::{ms, now, until};

/// Paths that make a line of about 4 KiB, so that few requests make much log.
const PATH: usize = 4000;

/// A gateway whose log goes into a pipe.
fn into_a_pipe() -> Binary {
    let document = "telemetry: { access_log: ./pipe }\nroutes: [{ match: \"/{*rest}\", respond: 204 }]";
    Binary::start_with(document, &[], |folder| {
        let made = Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap();
        assert!(made.success());
    })
}

/// Sends requests one after the other and gives the median time of each.
fn requests(gate: &Binary, count: usize, letter: &str) -> Duration {
    let mut client = gate.connect();
    let wire = request("GET", &format!("/{letter}{}", "p".repeat(PATH)), &[], b"");
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = now();
            assert_eq!(client.send(&wire).response().status(), 204);
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn dropped(gate: &Binary) -> f64 {
    gate.metric("pylon_access_log_dropped_total").unwrap()
}

fn open(path: &Path) -> File {
    // For both ends, so that opening waits for nobody.
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_log_that_nobody_reads_costs_bounded_memory_and_no_time_and_recovers() {
    let gate = into_a_pipe();
    let free = requests(&gate, 200, "p");
    let before = gate.process.memory();
    // 16 MiB of lines into a pipe of 64 KiB and a queue of 8 MiB.
    let held = requests(&gate, 4000, "p");
    let grown = gate.process.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{} MiB more for the log", grown >> 20);
    assert!(held < free * 3 + ms(2), "a request takes {held:?} in the median where it took {free:?}");
    until(ms(5000), "lines are dropped and counted", || dropped(&gate) > 0.0);

    // A reader comes: what was kept is read, and new lines come through without a loss.
    let reader = open(&gate.folder().join("pipe"));
    let (line, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for text in BufReader::new(reader).lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    let wanted = |text: &str, letter: &str| {
        let line: serde_json::Value = serde_json::from_str(text).expect("every line is whole");
        line["path"].as_str().is_some_and(|path| path.starts_with(&format!("/{letter}")))
    };
    requests(&gate, 1, "first");
    let mut written = false;
    until(ms(8000), "the queue is written out", || {
        written |= lines.try_iter().filter(|text| wanted(text, "first")).count() > 0;
        written
    });
    let lost = dropped(&gate);
    requests(&gate, 500, "new");
    let mut seen = 0;
    until(ms(8000), "every new line comes through", || {
        seen += lines.try_iter().filter(|text| wanted(text, "new")).count();
        seen >= 500
    });
    assert_eq!((seen, dropped(&gate)), (500, lost));
}

#[test]
fn a_slow_reader_of_the_log_holds_nobody_up() {
    let gate = into_a_pipe();
    let free = requests(&gate, 200, "p");
    let mut reader = open(&gate.folder().join("pipe"));
    std::thread::spawn(move || {
        let mut some = [0; 1024];
        while reader.read(&mut some).is_ok_and(|read| read > 0) {
            pylon_testkit::wait::pause(ms(5));
        }
    });
    let held = requests(&gate, 2000, "p");
    assert!(held < free * 3 + ms(2), "a request takes {held:?} in the median where it took {free:?}");
}

#[test]
fn a_log_on_a_full_disk_does_not_stop_the_traffic() {
    let gate = Binary::start("telemetry: { access_log: /dev/full }\nroutes: [{ match: /, respond: 204 }]");
    for _ in 0..50 {
        assert_eq!(gate.get("/").status(), 204);
    }
    until(ms(5000), "the loss is counted", || dropped(&gate) >= 50.0);
    assert!(gate.stderr().contains("the access log cannot be written"), "{}", gate.stderr());
    assert_eq!(gate.stderr().matches("cannot be written").count(), 1, "once, and not for each line");
}

#[test]
fn a_line_of_the_log_tells_who_asked_what_and_how_it_went() {
    let gate = Binary::start(
        "telemetry: { access_log: { file: access.log, headers: [user-agent] } }
routes: [{ match: \"POST /hello/{name}\", respond: { status: 201, body: hello } }]",
    );
    let fields = [("host", "Shop.example:80"), ("user-agent", "test \"quoted\"")];
    gate.ask("POST", "/hello/%41nna?token=secret&page=2", &fields, b"abc");
    let text = pylon_testkit::wait::eventually(ms(5000), "the line", || {
        std::fs::read_to_string(gate.folder().join("access.log")).ok().filter(|text| text.ends_with('\n'))
    });
    let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let object = line.as_object_mut().unwrap();
    let time = object.remove("time").unwrap();
    assert!(time.as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{time}");
    assert!(object.remove("duration_ms").unwrap().as_f64().unwrap() < 5000.0);
    assert_eq!(object.remove("id").unwrap().as_str().map(str::len), Some(36));
    let expected = serde_json::json!({
        "client": "127.0.0.1", "method": "POST", "host": "shop.example", "path": "/hello/Anna?token=***&page=2",
        "protocol": "HTTP/1.1", "status": 201, "bytes_in": 3, "bytes_out": 5, "route": "POST /hello/{name}",
        "headers": { "user-agent": "test \"quoted\"" }, "end": "complete"
    });
    // A body that nobody asked for may end uncounted.
    object.insert("bytes_in".into(), 3.into());
    assert_eq!(line, expected);
}

#[test]
fn a_log_that_cannot_be_opened_keeps_the_gateway_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let document = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { enabled: false }\n\
                    telemetry: { access_log: ./missing/access.log }\nroutes: [{ match: /, respond: 204 }]\n";
    std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
    let outcome = pylon_testkit::command::pylon(folder.path(), ["run", "pylon.yaml"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("./missing/access.log") && outcome.stderr.contains("telemetry.access_log"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_log_is_rotated_without_a_lost_line() {
    let gate =
        Binary::start("telemetry: { access_log: ./access.log }\nroutes: [{ match: \"/{*rest}\", respond: 204 }]");
    let (now, old) = (gate.folder().join("access.log"), gate.folder().join("access.log.1"));
    let count = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    gate.get("/before");
    until(ms(5000), "the first line is written", || count(&now) == 1);
    std::fs::rename(&now, &old).unwrap();
    gate.get("/between");
    until(ms(5000), "the old file goes on", || count(&old) == 2);
    gate.process.rotate();
    until(ms(5000), "the new file is there", || now.exists());
    gate.get("/after");
    until(ms(5000), "new lines go to the new file", || count(&now) == 1);
    assert_eq!(count(&old), 2);
}
