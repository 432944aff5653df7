//! What the subcommands print: tables, JSON and notices.
//!
//! In: texts, also from elsewhere. Out: lines on standard output and standard error. Text
//! from elsewhere is never printed unescaped, because it could control the terminal.

use std::io::{self, ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::AdminError;
use crate::model::text;

/// Writes a text and a line break to standard output. Returns `false` if the reader closed
/// the pipe (`| head`), which is not an error.
///
/// # Errors
/// Returns an error if the text cannot be written for another reason.
pub fn print(text: &str) -> Result<bool, AdminError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Percent-encodes a name for a path or query.
#[must_use]
pub fn encode(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Returns a table with headings. Each row is one line whatever the terminal's width, so
/// that `grep` and `awk` can read it.
#[must_use]
pub fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Escapes characters that control a terminal or are invisible.
#[must_use]
pub fn clean(text: &str) -> String {
    text::shown(text)
}

/// Writes JSON line by line and escapes characters that control a terminal. Returns like
/// [`print()`].
///
/// # Errors
/// Returns an error if the text cannot be written.
pub fn print_json(json: &str) -> Result<bool, AdminError> {
    let lines: Vec<_> = json.lines().map(text::shown_json).collect();
    print(&lines.join("\n"))
}

/// Writes a message to standard error. Standard output is for data only.
pub fn say(what: &str) {
    let _ = writeln!(io::stderr(), "{}", clean(what));
}

/// Formats an age in seconds: `0.4s`, `12s`, `3m 5s`, `2h 7m`, `4d 1h`.
#[must_use]
pub fn age(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    // Huge numbers saturate.
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_lines() {
        let rows = [["a", "1"], ["long-name", "\u{1b}[2J"]];
        let rows = rows.iter().map(|row| row.iter().map(ToString::to_string).collect());
        assert_eq!(
            table(&["NAME", "N"], rows),
            " NAME       N\n a          1\n long-name  \\u{1b}[2J"
        );
    }

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b"), "a\\u{1b}]0;x\\u{7}b");
        assert_eq!(clean("\u{202e}gnp\u{200b}"), "\\u{202e}gnp\\u{200b}");
        assert_eq!(clean("grüße <script>"), "grüße <script>");
    }

    #[test]
    fn ages_are_short() {
        let check = |seconds, expected| assert_eq!(age(seconds), expected);
        check(0.04, "0.0s");
        check(9.96, "10.0s");
        check(59.9, "59s");
        check(185.0, "3m 5s");
        check(7_620.0, "2h 7m");
        check(349_300.0, "4d 1h");
        check(-1.0, "0.0s");
    }
}
