//! Builds the manual: the reference that the binary prints, then the book around it.

use anyhow::Result;

use crate::shell;

/// Where the generated pages stand; nothing generated is in git.
const REFERENCE: &str = "target/docs/reference";

pub(crate) fn run() -> Result<bool> {
    shell::run(shell::cargo()?.args(["run", "--quiet", "-p", "pylon-cli", "--", "docs", "--out", REFERENCE]))?;
    println!("the reference is in {REFERENCE}");
    if shell::find("mdbook").is_none() {
        println!("the book is not built, since mdbook is not installed: cargo install --locked mdbook");
        return Ok(true);
    }
    // What a relative folder is relative to has changed between versions of mdbook.
    let book = shell::scratch("docs/book")?;
    shell::run(shell::command("mdbook")?.args(["build", "docs", "--dest-dir"]).arg(book))?;
    println!("the book is in target/docs/book");
    Ok(true)
}
