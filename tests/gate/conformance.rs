//! What independent suites say of the protocols.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::command::find;
use pylon_testkit::process::{Lines, Process};
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms};
use serde_json::Value;

/// sslyze tries what is known to be weak in TLS.
#[test]
fn sslyze_finds_nothing() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/sslyze");
    if !tools.exists() {
        eprintln!("sslyze is not there, so nothing was tested: ./test installs it where Python is");
        return;
    }
    let authority = Authority::default();
    let document = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]
routes: [{ match: \"/{*rest}\", respond: 200 }]";
    let gate = Binary::start_with(document, &[], |folder| authority.issue(&["localhost"]).write(folder, "a"));
    let scan = Command::new("python3")
        .args(["-m", "sslyze", &format!("localhost:{}", gate.address().port())])
        .env("PYTHONPATH", tools)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&scan.stdout);
    assert!(said.contains("SCANS COMPLETED") && !said.contains("Error when running"), "{said}");
    for word in ["VULNERABLE", "WARNING"] {
        assert!(!said.contains(word), "{said}");
    }
    // Against Mozilla's advice for servers of today. The certificate is one of this test: for how long, and by whom, is not ours.
    let advice = said.split_once("Not compliant.").map_or("", |(_, advice)| advice);
    let findings = advice.lines().filter_map(|line| line.trim().strip_prefix("* "));
    let ours = ["certificate_path_validation", "maximum_certificate_lifespan"];
    let left: Vec<_> = findings.filter(|finding| !ours.iter().any(|known| finding.starts_with(known))).collect();
    assert!(left.is_empty(), "{left:?}");
    for version in ["SSL 2.0", "SSL 3.0", "TLS 1.0", "TLS 1.1"] {
        assert!(said.contains(&format!("{version} Cipher Suites")), "{said}");
    }
    assert_eq!(said.matches("the server rejected all cipher suites").count(), 4, "{said}");
}

/// What testssl.sh says of a listener, against its whole list or some checks of it: no more than what is explained here.
#[expect(clippy::print_stderr, reason = "a test that cannot be run says so")]
fn testssl(checks: &[&str]) {
    let Some(program) = find("testssl") else {
        eprintln!("testssl.sh is not there, so nothing was tested: ./test installs it where Debian has it");
        return;
    };
    let authority = Authority::default();
    // What a certificate and a service owe, so that only what is the listener's own is left.
    let document = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]
routes:
  - match: \"/{*rest}\"
    respond: 200
    headers: { response: { set: { strict-transport-security: max-age=31536000, x-content-type-options: nosniff } } }";
    let gate = Binary::start_with(document, &[], |folder| {
        authority.issue_in_public(&["localhost"]).write(folder, "a");
        std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    });
    let child = Command::new(program)
        .current_dir(gate.folder())
        .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1"])
        .args(["--connect-timeout", "10", "--openssl-timeout", "10", "--add-ca", "authority.pem"])
        .args(["--jsonfile", "findings.json"])
        .args(checks)
        .arg(format!("localhost:{}", gate.address().port()))
        .stdin(Stdio::null())
        .stdout(File::create(gate.folder().join("findings.log")).unwrap())
        .spawn()
        .unwrap();
    Process::new(child).code(ms(400_000));
    let read = |name| std::fs::read_to_string(gate.folder().join(name)).unwrap_or_default();
    let said = read("findings.log");
    let findings: Vec<Value> = serde_json::from_str(&read("findings.json")).expect(&said);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let ids: Vec<_> = findings.iter().map(|finding| text(finding, "id")).collect();
    assert!(ids.iter().any(|id| id == "scanTime") && ids.len() > 15, "it ended early: {said}");
    let explained = [
        // All that is offered is strong, and the client knows which of it its processor does best: Mozilla's advice, too.
        ("HIGH", "cipher_order"),
        // The OpenSSL that it runs on has no engine for ciphers that we do not offer.
        ("WARN", "engine_problem"),
        // Its client hangs up behind the handshake, at times before the tickets are there, and has then none to come back with.
        ("WARN", "sessionresumption_ticket"),
    ];
    let left = findings.iter().filter(|finding| {
        let (severity, id) = (text(finding, "severity"), text(finding, "id"));
        !["OK", "INFO", "DEBUG"].contains(&&*severity) && !explained.contains(&(&*severity, &*id))
    });
    assert_eq!(left.collect::<Vec<_>>(), Vec::<&Value>::new());
}

#[test]
fn testssl_finds_nothing_weak_in_protocols_ciphers_and_certificate() {
    testssl(&["-p", "-s", "-f", "-P", "-S"]);
}

#[test]
fn testssl_knows_of_no_attack() {
    testssl(&["-U"]);
}

#[test]
#[ignore = "tries every cipher and plays fifty clients, for a minute or two"]
fn testssl_finds_nothing_at_all() {
    testssl(&[]);
}

/// h2spec plays a client that keeps to RFC 9113 and RFC 7541, and one that does not.
#[test]
fn h2spec_finds_nothing() {
    let h2spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/h2spec");
    if !h2spec.exists() {
        eprintln!("h2spec is not there, so nothing was tested: ./test installs it where Go is");
        return;
    }
    let authority = Authority::default();
    // Some cases send two frames and want the second to be seen before the first is answered.
    let service = Upstream::http(|_| Answer::text("hello").after(ms(30)));
    let document = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]
upstreams: {{ api: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        service.url()
    );
    let gate = Binary::start_with(&document, &[], |folder| authority.issue(&["localhost"]).write(folder, "a"));
    let port = gate.address().port().to_string();
    let output = Command::new(h2spec).args(["-h", "127.0.0.1", "-p", &port, "-t", "-k", "-o", "5"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let score = said.lines().last().unwrap_or_default();
    assert!(score.contains(" 0 skipped, 0 failed") && !score.starts_with("0 tests"), "{said}");
}

/// By case: what is said of the messages, and of the close.
type Verdicts = BTreeMap<String, [String; 2]>;

/// The program that plays the cases of Autobahn, and the service that they are played against.
fn autobahn(arguments: &[&str]) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = root.join("../target/test-tools/websocket");
    tools.join("kosoku").exists().then(|| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", tools).arg(root.join("conformance/websocket.py")).args(arguments);
        command
    })
}

fn verdicts(address: SocketAddr) -> Verdicts {
    let output = autobahn(&["run", &address.to_string()]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The cases of Autobahn play clients of RFC 6455 and RFC 7692 that keep to the rules, and clients that do not. Each ends
/// through the gateway as it does at the service itself, which has its own ways in a few.
#[test]
fn the_cases_of_autobahn_end_through_the_gateway_as_they_do_at_the_service() {
    let Some(mut command) = autobahn(&["echo"]) else {
        eprintln!("kosoku is not there, so nothing was tested: ./test installs it where Python is");
        return;
    };
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let lines = Lines::read(child.stdout.take().unwrap());
    let _service = Process::new(child);
    let port = eventually(ms(10_000), "the service says where it listens", || lines.all().first()?.parse::<u16>().ok());
    let service = SocketAddr::from(([127, 0, 0, 1], port));
    let gate = Binary::start(&format!(
        "telemetry: {{ access_log: off }}
upstreams: {{ echo: {{ endpoints: [http://{service}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: echo, websocket: true }}]"
    ));
    let (direct, through) = (verdicts(service), verdicts(gate.address()));
    let bad = |verdict: &[String; 2]| {
        verdict.iter().any(|word| !matches!(word.as_str(), "OK" | "NON-STRICT" | "INFORMATIONAL"))
    };
    let good = direct.values().filter(|verdict| !bad(verdict)).count();
    assert!(direct.len() >= 310 && good >= 300, "{good} of {} cases are fine without a gateway", direct.len());
    let other: Vec<_> =
        through.iter().filter(|(case, verdict)| bad(verdict) && direct.get(*case) != Some(*verdict)).collect();
    assert!(other.is_empty() && through.len() == direct.len(), "{other:?}");
}
