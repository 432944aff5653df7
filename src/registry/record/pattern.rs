//! Matches keys against patterns such as `{service...}/{id}`.
//!
//! In: the text of a pattern, and keys. Out: the captures of a key, or why the text is
//! no pattern. Segments end at slashes. A pattern matches the whole key or does not
//! match.

use std::fmt;

/// The pattern of a key. `{name}` captures text within a segment, `{name...}` captures
/// any number of whole segments, and `{*}` and `{*...}` match alike without a name. All
/// other text matches itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

/// The names of a pattern, each with the text that it captured in one key.
pub(super) type Captures<'a> = Vec<(&'a str, &'a str)>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Many(String),
    One(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Capture(String),
}

/// The only name that may capture an empty text within a segment: some registrants
/// leave their environment empty.
const MAY_BE_EMPTY: &str = "scope";
const NAMELESS: &str = "*";

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If braces, names or their order are invalid: the text with the reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("the pattern {text:?} {why}"));
        let mut segments = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for segment in text.split('/') {
            let many = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix("...}"));
            match many.filter(|name| !name.contains(['{', '}'])) {
                Some(name) => {
                    names.push(name.to_owned());
                    segments.push(Segment::Many(name.to_owned()));
                }
                None => match pieces(segment, &mut names) {
                    Ok(pieces) => segments.push(Segment::One(pieces)),
                    Err(why) => return bad(why),
                },
            }
        }
        if segments.iter().filter(|segment| matches!(segment, Segment::Many(_))).count() > 1 {
            return bad("has several {name...}: one at most can be told from its neighbours");
        }
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        names.retain(|name| name != NAMELESS);
        if let Some(name) = names.iter().find(|name| name.is_empty() || !name.chars().all(named)) {
            return bad(&format!("has the name {name:?}: use letters, digits, '-' and '_'"));
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad(&format!("has {:?} twice", twice[0]));
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// Returns whether the pattern has this name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Many(found) => found == name,
            Segment::One(pieces) => {
                pieces.iter().any(|piece| *piece == Piece::Capture(name.to_owned()))
            }
        })
    }

    /// Returns the captures of a key, or `None` if the key does not match.
    pub(super) fn captures<'a>(&'a self, key: &'a str) -> Option<Captures<'a>> {
        let mut found = Vec::new();
        let mut rest = Some(key);
        for (at, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::One(pieces) => {
                    let text = take_first(&mut rest)?;
                    one(pieces, text, &mut found)?;
                }
                Segment::Many(name) => {
                    let many = take_all_but(&mut rest, self.segments.len() - at - 1)?;
                    let empty = !many.is_empty() && many.split('/').any(str::is_empty);
                    if empty && name != NAMELESS {
                        return None;
                    }
                    found.push((name.as_str(), many));
                }
            }
        }
        rest.is_none().then_some(found)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn pieces(segment: &str, names: &mut Vec<String>) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = segment;
    while !rest.is_empty() {
        let literal = rest.split('{').next().unwrap_or_default();
        if literal.contains('}') {
            return Err("has a } without its {");
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        let Some(open) = rest[literal.len()..].strip_prefix('{') else { break };
        let (name, behind) = open.split_once('}').ok_or("has a { without its }")?;
        if name.ends_with("...") {
            return Err("has a {name...} that is not a whole segment");
        }
        if matches!(pieces.last(), Some(Piece::Capture(_))) {
            return Err("has two names without text between them");
        }
        names.push(name.to_owned());
        pieces.push(Piece::Capture(name.to_owned()));
        rest = behind;
    }
    Ok(pieces)
}

/// Takes the next segment; `None` if there is none.
fn take_first<'a>(rest: &mut Option<&'a str>) -> Option<&'a str> {
    let text = (*rest)?;
    let (first, behind) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    *rest = behind;
    Some(first)
}

/// Takes all segments but the last `keep`; `None` if there are fewer.
fn take_all_but<'a>(rest: &mut Option<&'a str>, keep: usize) -> Option<&'a str> {
    let Some(text) = *rest else { return (keep == 0).then_some("") };
    if keep == 0 {
        *rest = None;
        return Some(text);
    }
    let mut slashes = text.rmatch_indices('/').map(|(at, _)| at);
    match slashes.nth(keep - 1) {
        // An empty segment differs from no segment.
        Some(0) => None,
        Some(at) => {
            *rest = Some(&text[at + 1..]);
            Some(&text[..at])
        }
        // There are exactly `keep` segments, so none is left to take.
        None => (text.split('/').count() == keep).then_some(""),
    }
}

fn one<'a>(pieces: &'a [Piece], text: &'a str, found: &mut Captures<'a>) -> Option<()> {
    let mut rest = text;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
            Piece::Capture(name) => {
                let end = match pieces.get(at + 1) {
                    Some(Piece::Literal(next)) => rest.find(next.as_str())?,
                    _ => rest.len(),
                };
                if end == 0 && name != MAY_BE_EMPTY {
                    return None;
                }
                found.push((name.as_str(), &rest[..end]));
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, key: &str, expected: Option<&[(&str, &str)]>) {
        let pattern = Pattern::parse(pattern).unwrap();
        assert_eq!(pattern.captures(key).as_deref(), expected, "{pattern} {key}");
    }

    #[test]
    fn names_stand_for_text_and_for_segments() {
        check("{service...}/{id}", "a/b/1", Some(&[("service", "a/b"), ("id", "1")]));
        check("{service...}/{id}", "1", Some(&[("service", ""), ("id", "1")]));
        check("{service...}/{id}", "a/", None);
        check("{service...}/{id}", "a//1", None);
        check("{service...}/{id}", "/1", None);
        check("{service...}/{id}", "", None);
        check("{s}/x/{id}", "a/x/1", Some(&[("s", "a"), ("id", "1")]));
        check("{s}/x/{id}", "a/y/1", None);
        check("{s}/x/{id}", "a/x/1/2", None);
        check("{n}@{address}", "tcp@h:1", Some(&[("n", "tcp"), ("address", "h:1")]));
        check("{n}@{address}", "@h:1", None);
        check("{a}://{b}", "grpc://h:1", Some(&[("a", "grpc"), ("b", "h:1")]));
        let all = [("a", "g"), ("b", "s"), ("scope", ""), ("c", "x")];
        check("{a}:{b}:v1:{scope}/{c}", "g:s:v1:/x", Some(&all));
        check("{*...}", "a/b", Some(&[("*", "a/b")]));
        check("{a...}/x/{b}", "x/1", Some(&[("a", ""), ("b", "1")]));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let why = |text: &str| Pattern::parse(text).unwrap_err();
        for (text, part) in [
            ("{a", "has a { without its }"),
            ("a}", "has a } without its {"),
            ("{a}{b}", "has two names without text between them"),
            ("{a...}/{b...}", "has several {name...}"),
            ("x{a...}", "not a whole segment"),
            ("{}", "has the name \"\""),
            ("{a b}", "has the name \"a b\""),
            ("{a}/{a}", "has \"a\" twice"),
        ] {
            assert!(why(text).contains(part), "{text}: {}", why(text));
        }
    }
}
