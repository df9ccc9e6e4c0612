//! What independent suites say of the protocols.

use std::path::Path;
use std::process::Command;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::ms;

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
