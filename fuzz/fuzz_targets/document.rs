//! Any text as a document: reading never panics, and every complaint about it can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pylon_config::document;
use pylon_config::load::Source;

fuzz_target!(|text: &str| {
    let complaints = match Source::from_text("pylon.yaml", text) {
        Ok(source) => document::read(&source).1,
        Err(complaints) => complaints,
    };
    for complaint in &complaints {
        assert!(!complaint.title.is_empty());
        assert!(!complaint.render(false).is_empty());
    }
});
