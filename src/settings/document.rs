//! A document of per-service settings: TOML with `[service."PATTERN"]` tables. Pure.
//!
//! In: text. Out: a [`Document`], or all problems, each with its line and column. A
//! document is taken whole or not at all. The `--config` file has the same tables
//! beside the settings of the process; of that file, only these tables are read here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::pattern_index::PatternIndex;
use super::{Key, Pattern, Setting};
use crate::model::name::NAME_MAX;
use crate::tables::{self, Problem, Problems, Toml, Value};

/// The tables of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The tables without a star, by canonical name.
    exact: HashMap<String, Vec<Table>>,
    /// The tables with a star, the most specific first.
    starred: Vec<Table>,
    pattern_index: PatternIndex,
}

/// A pattern and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pattern: Pattern,
    /// In the order of the keys.
    settings: Vec<Setting>,
}

/// A table with the places of its settings.
struct Placed {
    table: Table,
    places: BTreeMap<Key, Range<usize>>,
}

/// The longest document, in bytes: room for thousands of tables, and a quarter of the
/// longest value that etcd accepts.
pub const DOCUMENT_MAX: usize = 256 * 1024;
/// The most tables with a star. Each may be compared with the name of each service.
const STARRED_MAX: usize = 256;
/// The longest text of a value, in bytes. No valid value is longer.
const VALUE_MAX: usize = 64;
/// The version of documents that this program reads.
const VERSION: &str = "1";
const TABLES: &str = "service";
const VERSION_KEY: &str = "version";

impl Document {
    /// Parses a document that holds only tables of services.
    ///
    /// # Errors
    /// All problems, up to a hundred.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let bytes = text.len();
        if bytes > DOCUMENT_MAX {
            let text = format!(
                "the document has {bytes} bytes: at most {DOCUMENT_MAX} are allowed, \
                 so use patterns with * instead of a table for each service"
            );
            return Err(vec![Problem { line: 1, column: 1, text }]);
        }
        let (document, problems) = tables::parse(text, |toml, problems| {
            for name in toml.root().keys().filter(|name| !Self::has_key(name.get_ref())) {
                let other = name.get_ref();
                problems.add(
                    name.span(),
                    format!(
                        "{other:?} is no part of a settings document: expected version and \
                         [service.\"PATTERN\"] tables (settings of the process stay flags)"
                    ),
                );
            }
            Self::within(toml, problems)
        });
        document.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Reads the tables of services in a file that also holds other settings, which it
    /// ignores. Returns `None` if the tables have a problem, or if any part of the text is
    /// no TOML.
    pub fn within(toml: &Toml<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let before = problems.found();
        let document = Reader { problems }.document(toml.root());
        (problems.found() == before && !toml.is_broken()).then_some(document)
    }

    /// Returns whether a top-level key belongs to a document.
    #[must_use]
    pub fn has_key(key: &str) -> bool {
        key == TABLES || key == VERSION_KEY
    }

    /// Returns the number of tables.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables().count()
    }

    /// Returns whether there are no tables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the tables that match a canonical name, the most specific first.
    pub fn matching<'a>(&'a self, canonical: &'a str) -> impl Iterator<Item = &'a Table> {
        let exact = self.exact.get(canonical).into_iter().flatten();
        let starred =
            self.pattern_index.candidates(canonical).into_iter().map(|at| &self.starred[at]);
        exact.chain(starred.filter(|table| table.pattern.matches(canonical)))
    }

    /// Returns the patterns that match none of these canonical names, sorted. `*`
    /// counts as matching.
    #[must_use]
    pub fn unmatched(&self, canonical: &[String]) -> Vec<String> {
        let names: HashSet<&str> = canonical.iter().map(String::as_str).collect();
        let matches = |pattern: &Pattern| match pattern.is_starred() {
            false => names.contains(pattern.canonical()),
            true => pattern.is_default() || canonical.iter().any(|name| pattern.matches(name)),
        };
        let patterns = self.tables().map(|table| &table.pattern);
        let missed = patterns.filter(|pattern| !matches(pattern));
        let mut missed: Vec<_> = missed.map(ToString::to_string).collect();
        missed.sort_unstable();
        missed
    }

    /// Returns all tables.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.exact.values().flatten().chain(&self.starred)
    }
}

/// The TOML that [`Document::parse`] reads.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in self.tables() {
            f.write_str("[service.\"")?;
            for character in table.pattern.as_str().chars() {
                match character {
                    '"' | '\\' => write!(f, "\\{character}")?,
                    control if control.is_control() => write!(f, "\\U{:08x}", u32::from(control))?,
                    other => write!(f, "{other}")?,
                }
            }
            f.write_str("\"]\n")?;
            for setting in &table.settings {
                writeln!(f, "{} = \"{setting}\"", setting.key().as_str())?;
            }
        }
        Ok(())
    }
}

impl Table {
    /// Returns the pattern.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Returns the settings, in the order of the keys.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Returns the setting of a key, if the table sets it.
    #[must_use]
    pub fn setting(&self, key: Key) -> Option<Setting> {
        self.settings.iter().copied().find(|setting| setting.key() == key)
    }
}

/// Reads one document.
struct Reader<'a, 'b> {
    problems: &'a mut Problems<'b>,
}

impl Reader<'_, '_> {
    fn document(&mut self, root: &DeTable<'_>) -> Document {
        let mut tables = Vec::new();
        for (key, value) in root {
            match &**key.get_ref() {
                TABLES => tables = self.services(value),
                VERSION_KEY => self.version(value),
                _ => {}
            }
        }
        self.contradictions(&tables);
        let mut document = Document::default();
        for Placed { table, .. } in tables {
            match table.pattern.is_starred() {
                true => document.starred.push(table),
                false => {
                    let name = table.pattern.canonical().to_owned();
                    document.exact.entry(name).or_default().push(table);
                }
            }
        }
        document.starred.sort_by(|a, b| a.pattern.by_specificity(&b.pattern));
        document.pattern_index =
            PatternIndex::new(document.starred.iter().map(|table| &table.pattern));
        document
    }

    fn version(&mut self, value: &Value<'_>) {
        let found = match value.get_ref() {
            DeValue::Integer(number) if number.as_str() == VERSION => return,
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::String(text) => format!("{:?}", short(text)),
            other => other.type_str().to_owned(),
        };
        self.problems.add(
            value.span(),
            format!(
                "version is {found}: this lookaside reads version = {VERSION}; write that, or \
                 use the lookaside that wrote the document"
            ),
        );
    }

    fn services(&mut self, value: &Value<'_>) -> Vec<Placed> {
        let DeValue::Table(services) = value.get_ref() else {
            let found = value.get_ref().type_str();
            self.problems.add(
                value.span(),
                format!("service is {found}: expected [service.\"PATTERN\"] tables"),
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        let mut starred = 0;
        for (name, value) in services {
            let text: &str = name.get_ref();
            if text.len() > NAME_MAX {
                let bytes = text.len();
                let told = format!(
                    "the pattern {:?} has {bytes} bytes: at most {NAME_MAX} are allowed",
                    short(text)
                );
                self.problems.add(name.span(), told);
                continue;
            }
            let pattern = match Pattern::parse(text) {
                Ok(pattern) => pattern,
                Err(error) => {
                    self.problems.add(name.span(), error.to_string());
                    continue;
                }
            };
            starred += usize::from(pattern.is_starred());
            if starred == STARRED_MAX + 1 {
                self.problems.add(
                    name.span(),
                    format!(
                        "the pattern {text:?} is one with a star too many: at most {STARRED_MAX} \
                         are allowed"
                    ),
                );
            }
            let DeValue::Table(settings) = value.get_ref() else {
                let found = value.get_ref().type_str();
                let remedy = format!("write [service.{text:?}] and its settings below it");
                self.problems.add(name.span(), format!("service.{text:?} is {found}: {remedy}"));
                continue;
            };
            tables.push(self.table(pattern, settings));
        }
        if starred > STARRED_MAX { Vec::new() } else { tables }
    }

    fn table(&mut self, pattern: Pattern, settings: &DeTable<'_>) -> Placed {
        let mut places = BTreeMap::new();
        let mut found = Vec::new();
        for (name, value) in settings {
            let text: &str = name.get_ref();
            let Some(key) = Key::parse(text) else {
                let remedy = match Key::parse(&text.replace('_', "-")) {
                    _ if value.get_ref().is_table() => {
                        "a pattern with a dot stands in quotes, as in [service.\"greet.rpc\"]"
                            .to_owned()
                    }
                    Some(key) => format!("write {}", key.as_str()),
                    None => {
                        let known: Vec<_> = Key::ALL.iter().map(|key| key.as_str()).collect();
                        format!("expected one of {}", known.join(", "))
                    }
                };
                let told =
                    format!("[service.\"{pattern}\"]: {:?} is no setting: {remedy}", short(text));
                self.problems.add(name.span(), told);
                continue;
            };
            let setting = match value.get_ref() {
                DeValue::String(text) => parse(key, text),
                DeValue::Integer(number) if number.radix() == 10 => parse(key, number.as_str()),
                other => Err(format!(
                    "it is {}: write text, or a whole number where one is meant",
                    other.type_str()
                )),
            };
            match setting {
                Ok(setting) => {
                    places.insert(key, name.span());
                    found.push(setting);
                }
                Err(error) => {
                    let told = format!("[service.\"{pattern}\"] {}: {error}", key.as_str());
                    self.problems.add(value.span(), told);
                }
            }
        }
        found.sort_by_key(|setting| setting.key());
        Placed { table: Table { pattern, settings: found }, places }
    }

    /// Reports pairs of patterns that can match one service, set one key differently,
    /// and are equally specific.
    fn contradictions(&mut self, tables: &[Placed]) {
        let mut sorted: Vec<&Placed> = tables.iter().collect();
        sorted.sort_by(|a, b| {
            let (a, b) = (&a.table.pattern, &b.table.pattern);
            // Sorts equal names without a star next to each other.
            let exact = || (!a.is_starred()).then(|| a.canonical().cmp(b.canonical()));
            a.by_specificity(b).then_with(|| exact().unwrap_or(std::cmp::Ordering::Equal))
        });
        for (index, one) in sorted.iter().enumerate() {
            let pattern = &one.table.pattern;
            for other in &sorted[index + 1..] {
                let against = &other.table.pattern;
                let differs = pattern.by_specificity(against).is_ne()
                    || (!pattern.is_starred() && pattern.canonical() != against.canonical());
                if differs {
                    break;
                }
                let conflict = |setting: &Setting| {
                    let theirs = other.table.setting(setting.key())?;
                    (theirs != *setting).then_some((*setting, theirs))
                };
                let conflicts: Vec<_> = one.table.settings.iter().filter_map(conflict).collect();
                if conflicts.is_empty() || !pattern.overlaps(against) {
                    continue;
                }
                for (ours, theirs) in conflicts {
                    let key = ours.key();
                    let place = other.places.get(&key).cloned().unwrap_or_default();
                    let told = format!(
                        "{}: \"{against}\" says {theirs} and \"{pattern}\" says {ours}, both can \
                         match one service and neither is more specific: give both one value, or \
                         make one pattern longer",
                        key.as_str()
                    );
                    self.problems.add(place, told);
                }
                if self.problems.is_full() {
                    return;
                }
            }
        }
    }
}

/// Parses a setting, unless its text is longer than any valid one.
fn parse(key: Key, text: &str) -> Result<Setting, String> {
    if text.len() > VALUE_MAX {
        let (short, bytes) = (short(text), text.len());
        return Err(format!("{short:?} has {bytes} bytes: at most {VALUE_MAX} are allowed"));
    }
    Setting::parse(key, text)
}

/// Returns the beginning of a text, for people.
fn short(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
