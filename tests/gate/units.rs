//! The units for systemd that are shipped are ones that systemd takes.

use std::path::Path;
use std::process::Command;

use pylon_testkit::command::{find, program};

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(analyze) = find("systemd-analyze") else {
        eprintln!("systemd-analyze is not there, so the units were not looked at: ./test installs it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let mut command = Command::new(analyze);
    command.args(["verify", "--man=no"]);
    for name in ["pylon.service", "pylon.socket"] {
        // The program has to be there to be found executable.
        let text = std::fs::read_to_string(units.join(name)).unwrap();
        let text = text.replace("/usr/local/bin/pylon", program().to_str().unwrap());
        std::fs::write(folder.path().join(name), text).unwrap();
        command.arg(folder.path().join(name));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It also tells of other units of the machine.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("pylon")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}
