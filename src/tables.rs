//! Parses TOML into tables whose entries know their places. Pure.
//!
//! In: a text. Out: its root table (even if parts of the text are not TOML), typed values of
//! the valid entries, and all problems with line and column. One problem does not hide
//! another. Text on a broken line is never shown, because it may be part of a secret.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor, value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Error, ValueDeserializer};

/// The name of an entry, with its place.
pub type Name<'a> = Spanned<DeString<'a>>;
/// The value of an entry, with its place.
pub type Value<'a> = Spanned<DeValue<'a>>;

/// A text, parsed as TOML.
#[derive(Debug)]
pub struct Toml<'a> {
    root: DeTable<'a>,
    text: Text<'a>,
    errors: Vec<Misfit>,
    /// The lines that are not TOML.
    broken: HashSet<usize>,
}

/// A text and the starts of its lines.
#[derive(Debug)]
struct Text<'a> {
    text: &'a str,
    /// The byte at which each line begins.
    lines: Vec<usize>,
}

/// What the parser found wrong, with the byte where it begins.
#[derive(Debug)]
struct Misfit {
    at: usize,
    why: String,
}

/// A problem in a text, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from one.
    pub line: usize,
    /// In characters, counted from one.
    pub column: usize,
    /// The thing, the value and the remedy.
    pub text: String,
}

/// The problems found in a text so far.
#[derive(Debug)]
pub struct Problems<'a> {
    text: &'a Text<'a>,
    /// The lines that are not TOML.
    broken: &'a HashSet<usize>,
    reported: Vec<Problem>,
    found: usize,
}

/// The most problems that are reported.
const PROBLEMS_MAX: usize = 100;
/// The parser's errors for keys without a value, after which its recovery skips the rest.
const VALUELESS: [&str; 2] = ["key with no value", "missing value for key"];
/// What is said of a key of too many parts, after which the recovery skips the rest too.
const DEEP: &str = "a key has too many parts, expected fewer than 80";
/// The fewest dots of a line that may hold such a key.
const DOTS_MIN: usize = 79;

/// Parses as much of a text as possible and passes it to `read`. Returns the result of `read`
/// and all problems, sorted by place: those of the text and those that `read` adds.
pub fn parse<R>(
    text: &str,
    read: impl FnOnce(&Toml<'_>, &mut Problems<'_>) -> R,
) -> (R, Vec<Problem>) {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    let lines = Text::new(text);
    let errors = lines.places(&errors);
    let hiding = errors.iter().filter(|error| hides_the_rest(error)).map(|error| error.at);
    let without = lines.without(hiding);
    if let Some(text) = &without {
        (root, _) = DeTable::parse_recoverable(text);
    }
    let broken = errors.iter().map(|error| lines.line(error.at)).collect();
    let toml = Toml { root: root.into_inner(), text: lines, errors, broken };
    let mut problems = toml.problems();
    let result = read(&toml, &mut problems);
    problems.reported.sort_by_key(|problem| (problem.line, problem.column));
    (result, problems.reported)
}

impl<'a> Toml<'a> {
    /// Returns the top-level table.
    #[must_use]
    pub fn root(&self) -> &DeTable<'a> {
        &self.root
    }

    /// Returns whether some of the text is not TOML.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Returns whether a byte is on a line that is not TOML, whose entries cannot be trusted.
    #[must_use]
    pub fn breaks_at(&self, at: usize) -> bool {
        self.broken.contains(&self.text.line(at))
    }

    /// Returns line and column of a byte, both counted from one.
    #[must_use]
    pub fn position(&self, at: usize) -> (usize, usize) {
        self.text.position(at)
    }

    fn problems(&self) -> Problems<'_> {
        let found = self.errors.len();
        let (text, broken) = (&self.text, &self.broken);
        let mut problems = Problems { text, broken, reported: Vec::new(), found };
        for Misfit { at, why } in self.errors.iter().take(PROBLEMS_MAX) {
            problems.report(*at, format!("this is no TOML: {why}"));
        }
        problems
    }
}

impl<'a> Text<'a> {
    fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(ends).collect() }
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let before = self.text.get(self.lines[line - 1]..at).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    /// Adds their places to the parser's errors. It gives none for a key of too many parts, so
    /// those lines are looked for.
    fn places(&self, errors: &[Error]) -> Vec<Misfit> {
        let placed = errors.iter().filter_map(|error| {
            Some(Misfit { at: error.span()?.start, why: error.message().to_owned() })
        });
        let placeless = errors.iter().any(|error| error.span().is_none());
        let deep = if placeless { self.deep() } else { Vec::new() };
        let deep = deep.into_iter().map(|at| Misfit { at, why: DEEP.to_owned() });
        deep.chain(placed).collect()
    }

    /// Returns where the lines begin that have a key of too many parts.
    fn deep(&self) -> Vec<usize> {
        let dotted = |at: &usize| self.rest_of_line(*at).matches('.').count() >= DOTS_MIN;
        let dotted: Vec<_> = self.lines.iter().copied().filter(dotted).collect();
        let is_deep = |at: &usize| {
            let (_, errors) = DeTable::parse_recoverable(self.rest_of_line(*at));
            errors.iter().any(|error| error.span().is_none())
        };
        let deep: Vec<_> = dotted.iter().copied().filter(is_deep).collect();
        // Inside an array of several lines, a line alone is something else.
        if deep.is_empty() { dotted } else { deep }
    }

    fn rest_of_line(&self, at: usize) -> &'a str {
        self.text[at..].split('\n').next().unwrap_or_default()
    }

    /// Returns the text with blanks instead of the lines of these bytes, or `None` if no line
    /// changes. A line with triple quotes stays: it may begin a string of several lines, whose
    /// rest would be read as entries.
    fn without(&self, bytes: impl Iterator<Item = usize>) -> Option<String> {
        let mut left: Option<Vec<u8>> = None;
        for at in bytes {
            let line = self.line(at);
            let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
            let range = self.lines[line - 1]..end;
            let stays =
                ["\"\"\"", "'''"].iter().any(|quotes| self.text[range.clone()].contains(quotes));
            if !stays {
                left.get_or_insert_with(|| self.text.into())[range].fill(b' ');
            }
        }
        String::from_utf8(left?).ok()
    }
}

impl Problems<'_> {
    /// Adds a problem. It is counted but not reported if it follows from a broken line or if
    /// `PROBLEMS_MAX` problems are reported already.
    pub fn add(&mut self, span: Range<usize>, text: String) {
        self.found += 1;
        // Values that the parser's recovery makes up have the span 0..0.
        let made_up = !self.broken.is_empty() && span == (0..0);
        let follows = made_up || self.broken.contains(&self.text.line(span.start));
        if !follows && !self.is_full() {
            self.report(span.start, text);
        }
    }

    /// Returns the number of problems found, including those that are not reported.
    #[must_use]
    pub fn found(&self) -> usize {
        self.found
    }

    /// Returns whether no further problem is reported.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reported.len() >= PROBLEMS_MAX
    }

    fn report(&mut self, at: usize, text: String) {
        let (line, column) = self.text.position(at);
        self.reported.push(Problem { line, column, text });
    }
}

/// Formats as `LINE:COLUMN: text`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, text } = self;
        write!(f, "{line}:{column}: {text}")
    }
}

/// Returns a struct of the valid entries; its fields must all have defaults. Passes each
/// other entry to `wrong`: with `None` if the struct has no such field, else with the
/// reason why the value does not fit.
pub fn typed<'a: 'b, 'b, T: DeserializeOwned + Default>(
    entries: impl IntoIterator<Item = (&'b Name<'a>, &'b Value<'a>)>,
    mut wrong: impl FnMut(&Name<'a>, &Value<'a>, Option<&str>),
) -> T {
    let known = fields::<T>();
    let mut right = DeTable::new();
    for (name, value) in entries {
        if !known.contains(&&**name.get_ref()) {
            wrong(name, value, None);
            continue;
        }
        // Each entry is tried alone, so that its error does not affect the others.
        let entry = (name.clone(), value.clone());
        match of_table::<T>(DeTable::from_iter([entry.clone()])) {
            Ok(_) => right.extend([entry]),
            Err(error) => wrong(name, value, Some(error.message())),
        }
    }
    of_table(right).unwrap_or_default()
}

/// Returns the names of a struct's fields as they are deserialised.
#[must_use]
pub fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

/// A deserialiser that has no value and records the fields that it is asked for.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(value::Error::custom("there is no value"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn of_table<T: DeserializeOwned>(table: DeTable<'_>) -> Result<T, Error> {
    T::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(table))))
}

/// Returns whether the parser's recovery skips what follows.
fn hides_the_rest(error: &Misfit) -> bool {
    error.why == DEEP || VALUELESS.iter().any(|begin| error.why.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Both {
        one_word: String,
        number: Option<u8>,
    }

    /// Returns the value and all problems.
    fn read(text: &str) -> (Both, Vec<String>) {
        let (both, problems) = parse(text, |toml, problems| {
            typed(toml.root(), |name, _, why| {
                let text = format!("{} {}", name.get_ref(), why.unwrap_or("unknown"));
                problems.add(name.span(), text);
            })
        });
        (both, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_right_is_taken_and_the_rest_is_told() {
        let (both, reported) = read("one-word = 'x'\n  number = 300\n'é' = 1\nbroken\n[more]\n");
        assert_eq!(both, Both { one_word: "x".to_owned(), number: None });
        assert!(reported[0].starts_with("2:3: number invalid value"), "{reported:?}");
        assert_eq!(reported[1], "3:1: é unknown");
        assert!(reported[2].starts_with("4:7: this is no TOML: "), "{reported:?}");
        assert_eq!(reported[3..], ["5:2: more unknown"]);
        assert_eq!(fields::<Both>(), ["one-word", "number"]);
        let (_, reported) = read("\nnumber = = 1\n");
        assert!(
            !reported.is_empty() && reported.iter().all(|reported| reported.starts_with("2:")),
            "{reported:?}"
        );
        let (_, reported) = read(&"= 1\n".repeat(200));
        assert_eq!(reported.len(), PROBLEMS_MAX);
    }

    #[test]
    fn a_key_without_a_value_hides_nothing_that_follows() {
        for line in ["key", "key: 7", "a.", ".", "a b = 1", "\"key = 1", "a = ", "= 1"] {
            let (both, reported) = read(&format!("{line}\nnumber = 7\nmore = 1\n"));
            assert_eq!(both.number, Some(7), "{line}: {reported:?}");
            assert_eq!(
                reported.last().map(String::as_str),
                Some("3:1: more unknown"),
                "{reported:?}"
            );
        }
        // A line that may be the rest of a string is not read as a key.
        let (_, reported) = read("key '''\nsecret = 1\n'''\n");
        assert!(!reported.iter().any(|reported| reported.contains("secret")), "{reported:?}");
    }

    #[test]
    fn a_key_of_too_many_parts_costs_its_line_alone() {
        let deep = format!("{}a = 1\n", "a.".repeat(100));
        let (both, reported) = read(&format!("number = 7\n{deep}one-word = 'x'\n{deep}"));
        assert_eq!(both, Both { one_word: "x".to_owned(), number: Some(7) });
        let expected = |line| format!("{line}:1: this is no TOML: {DEEP}");
        assert_eq!(reported, [expected(2), expected(4)]);
        let array = format!("x = [\n{{ {} }}]\nnumber = 7\n", deep.trim_end());
        assert!(read(&array).1.contains(&expected(2)));
    }

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = Text::new("a\né!\n");
        let found: Vec<_> = [0, 1, 2, 4, 5, 6, 99].iter().map(|at| text.position(*at)).collect();
        assert_eq!(found, [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 1)]);
    }
}
