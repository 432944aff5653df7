//! Bearer tokens, which say that whoever sends one may read or change.
//!
//! In: the content of a file with one token a line. Out: whether a text is one of them, in
//! a time that does not depend on how much of it is right. A token is never shown: neither
//! by `Debug` nor by an error.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};

/// The tokens of one file, at least one. Clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<[Box<[u8]>]>);

/// The shortest token, in bytes: 16 of base64 are 96 random bits, which nobody guesses.
const SHORTEST: usize = 16;
/// The longest token, in bytes. Headers have 16 KiB in all.
const LONGEST: usize = 512;
/// The most tokens in a file. Each request is compared with all of them.
const MOST: usize = 100;
/// How to make a token.
const REMEDY: &str = "`openssl rand -hex 32` makes one";

impl Tokens {
    /// Reads a file's content: one token a line. Skips empty lines and lines that begin
    /// with `#`.
    ///
    /// # Errors
    /// Returns all problems. Each begins with the flag and names the line, not the token.
    pub fn parse(flag: &str, path: &Path, content: &[u8]) -> Result<Self, Vec<String>> {
        let text = String::from_utf8_lossy(content);
        let mut problems = Vec::new();
        let mut tokens: Vec<Box<[u8]>> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match fault(line) {
                None => tokens.push(line.as_bytes().into()),
                Some(fault) => {
                    let number = index + 1;
                    problems.push(format!("{flag}: {path:?}, line {number}: {fault}: {REMEDY}"));
                }
            }
        }
        if tokens.is_empty() && problems.is_empty() {
            problems.push(format!("{flag}: {path:?} holds no token: {REMEDY}"));
        }
        if tokens.len() > MOST {
            let all = tokens.len();
            problems
                .push(format!("{flag}: {path:?} holds {all} tokens, at most {MOST}: remove some"));
        }
        if problems.is_empty() { Ok(Self(tokens.into())) } else { Err(problems) }
    }

    /// Returns whether a text is one of the tokens. Compares it with all of them, and with
    /// all their bytes.
    #[must_use]
    pub fn contains(&self, text: &[u8]) -> bool {
        let none = Choice::from(0);
        self.0.iter().fold(none, |found, token| found | token.ct_eq(text)).into()
    }

    /// Returns the first token, to send it.
    #[must_use]
    pub fn first(&self) -> &str {
        // Every token is visible ASCII.
        self.0.first().and_then(|token| std::str::from_utf8(token).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

/// Returns why a line is no token, without showing it.
fn fault(line: &str) -> Option<String> {
    if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("a token has letters, digits and signs of ASCII only".to_owned());
    }
    let length = line.len();
    (!(SHORTEST..=LONGEST).contains(&length))
        .then(|| format!("a token has {SHORTEST} to {LONGEST} characters, not {length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tokens, Vec<String>> {
        Tokens::parse("--x", Path::new("f"), text.as_bytes())
    }

    #[test]
    fn a_file_holds_one_token_a_line() {
        let tokens =
            parse("# the old one\r\naaaaaaaaaaaaaaaa\r\n\n  bbbbbbbbbbbbbbbb~+/=  \n").unwrap();
        assert!(tokens.contains(b"aaaaaaaaaaaaaaaa") && tokens.contains(b"bbbbbbbbbbbbbbbb~+/="));
        for other in
            ["", "a", "aaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "# the old one"]
        {
            assert!(!tokens.contains(other.as_bytes()), "{other}");
        }
        assert_eq!(tokens.first(), "aaaaaaaaaaaaaaaa");
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let check = |text: &str, expected: &[&str]| assert_eq!(parse(text).unwrap_err(), expected);
        check("\n# none\n", &["--x: \"f\" holds no token: `openssl rand -hex 32` makes one"]);
        check(
            "hunter2\nhunter2 hunter2 hunter2\nhunter2hunter2hünter2\n",
            &[
                "--x: \"f\", line 1: a token has 16 to 512 characters, not 7: `openssl rand -hex 32` makes one",
                "--x: \"f\", line 2: a token has letters, digits and signs of ASCII only: `openssl rand -hex 32` makes one",
                "--x: \"f\", line 3: a token has letters, digits and signs of ASCII only: `openssl rand -hex 32` makes one",
            ],
        );
        let many = parse(&"aaaaaaaaaaaaaaaa\n".repeat(101)).unwrap_err();
        assert_eq!(many, ["--x: \"f\" holds 101 tokens, at most 100: remove some"]);
    }
}
