//! Makes text from outside safe to show to people.
//!
//! In: keys, values, names and errors, which any writer may have chosen. Out: the same
//! text, with an escape for every character that controls a terminal, changes the reading
//! direction or is invisible. Logs, tables, plain answers and JSON all use it. It never
//! shortens a text.

use std::fmt::Write as _;

/// Returns the text with escapes as Rust writes them: `\u{9b}`.
#[must_use]
pub fn shown(text: &str) -> String {
    escaped(text, |c, shown| shown.extend(c.escape_unicode()))
}

/// Returns JSON with escapes as JSON writes them: `\u009b`. The meaning stays the same.
///
/// The text must be JSON without line breaks between its values, so that such characters
/// occur only inside strings.
#[must_use]
pub fn shown_json(json: &str) -> String {
    escaped(json, |c, shown| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    })
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    // Nearly every text is plain ASCII and needs no copy by character.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| !c.is_ascii() || c.is_ascii_control()) {
        match part.chars().next_back().filter(|last| is_unfit(*last)) {
            None => shown.push_str(part),
            Some(last) => {
                shown.push_str(&part[..part.len() - last.len_utf8()]);
                escape(last, &mut shown);
            }
        }
    }
    shown
}

/// Returns a URL with `***` in place of its user name and password.
#[must_use]
pub fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let authority = &url[start..];
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    match authority[..end].rfind('@') {
        Some(at) => format!("{}***{}", &url[..start], &authority[at..]),
        None => url.to_owned(),
    }
}

/// Returns whether a character needs an escape: a control character (C0, DEL, C1), one
/// that changes the reading direction or breaks lines, or an invisible one (Unicode's
/// `Default_Ignorable_Code_Point`, which includes the tag characters).
fn is_unfit(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNFIT: [char; 20] = [
        '\0',
        '\n',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{85}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202e}',
        '\u{2066}',
        '\u{feff}',
        '\u{fff9}',
        '\u{e0001}',
        '\u{e0041}',
    ];

    #[test]
    fn what_steers_or_hides_is_shown_as_an_escape() {
        for c in UNFIT {
            assert_eq!(shown(&format!("a{c}b")), format!("a{}b", c.escape_unicode()));
        }
        for fine in ["grüße <script>", "日本語", "a\\u{1b}", "🦀 \"'\t".trim_end(), ""] {
            assert_eq!(shown(fine), fine);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        for c in UNFIT {
            let text = format!("a{c}\"b");
            let json = shown_json(&serde_json::to_string(&text).unwrap());
            assert!(!json.chars().any(is_unfit), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn passwords_in_urls_are_not_shown() {
        let check = |url, expected: &str| assert_eq!(without_password(url), expected);
        check("http://me:secret@host:1/path", "http://***@host:1/path");
        check("me:se@cret@host:1", "***@host:1");
        check("http://host:1/a@b", "http://host:1/a@b");
        check("host", "host");
    }
}
