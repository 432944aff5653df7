//! Any text as a settings document and as the file of settings: what it says, or
//! problems with their places, never a panic.

use std::collections::BTreeSet;

use lookaside::config::file::File;
use lookaside::settings::Document;
use lookaside::tables::Problem;

/// Panics at what must not be.
pub fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let document = match Document::parse(text) {
        Ok(document) => Some(document),
        Err(problems) => {
            check_places(&problems, text);
            None
        }
    };
    if let Some(document) = &document {
        // What it says can be written down, and is then the same.
        assert_eq!(Document::parse(&document.to_string()).as_ref(), Ok(document));
    }
    let decided = BTreeSet::from(["listen".to_owned()]);
    let (file, problems) = File::parse(text, &decided);
    if problems.is_empty() {
        assert!(file.services.is_some());
    } else {
        check_places(&problems, text);
    }
    if document.is_some() {
        assert_eq!(file.services.as_deref(), document.as_ref());
    }
    // A line more moves everything and changes nothing.
    if text.starts_with('\u{feff}') {
        return;
    }
    let (moved, moved_problems) = File::parse(&format!("# a comment\n{text}"), &decided);
    let said = |file: &File| format!("{:?} {:?}", file.process, file.customs);
    assert_eq!(said(&moved), said(&file));
    assert_eq!(moved.services, file.services);
    let up = |problem: Problem| Problem { line: problem.line - 1, ..problem };
    assert_eq!(moved_problems.into_iter().map(up).collect::<Vec<_>>(), problems);
}

/// Each problem is somewhere in the text, and they are not without end.
fn check_places(problems: &[Problem], text: &str) {
    assert!((1..=100).contains(&problems.len()));
    let lines: Vec<&str> = text.split('\n').collect();
    for Problem { line, column, text } in problems {
        let length = lines[line - 1].chars().count();
        assert!((1..=length + 1).contains(column), "{line}:{column}: {text}");
        assert!(!text.is_empty());
    }
}
