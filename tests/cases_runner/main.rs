//! Runs every case file of `tests/cases`: a document, scripted services, and steps with what is expected of them.
//!
//! Each file is a test of its own name against a real gateway in this process, on loopback. The files are also the examples
//! of the manual, so each begins with a comment in prose. How a file is written stands in [`case`].

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails by a panic")]

mod case;
mod expect;
mod stage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::case::Case;
use crate::stage::Stage;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let trials = files(&root).into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
        Trial::test(name, move || run(&path))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// All case files, in order.
fn files(root: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut files: Vec<PathBuf> = list(root).iter().filter(|path| path.is_dir()).flat_map(|area| list(area)).collect();
    files.sort();
    files
}

fn run(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let case = Case::read(&path.file_name().unwrap().to_string_lossy(), &text)?;
    let mut stage = Stage::set(&case)?;
    for (number, step) in case.steps.iter().enumerate() {
        stage.play(step).map_err(|problem| format!("step {}: {problem}", number + 1))?;
    }
    stage.close();
    Ok(())
}
