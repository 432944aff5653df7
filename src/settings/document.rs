//! A document of per-service settings: TOML with `[service."PATTERN"]` tables,
//! `[zones]` and `[registrants]`. Pure.
//!
//! In: text. Out: a [`Document`], or all problems, each with its line and column. A
//! document is taken whole or not at all. The `--config` file has the same tables
//! beside the settings of the process; of that file, only these tables are read here.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::pattern_index::PatternIndex;
use super::{Key, Pattern, Registrants, Setting, ZoneTable};
use crate::tables::{self, Problem, Problems, Toml};

mod changes;
mod reader;
mod registrants;
mod zones;

pub use changes::changes;
use reader::Reader;

/// The tables of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The tables without a star, by canonical name.
    exact: HashMap<String, Vec<Table>>,
    /// The tables with a star, the most specific first.
    starred: Vec<Table>,
    pattern_index: PatternIndex,
    zones: ZoneTable,
    registrants: Registrants,
}

/// A pattern and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pattern: Pattern,
    /// In the order of the keys.
    settings: Vec<Setting>,
}

/// The longest document, in bytes: room for thousands of tables, and a quarter of the
/// longest value that etcd accepts.
pub const DOCUMENT_MAX: usize = 256 * 1024;
const TABLES: &str = "service";
const ZONES: &str = "zones";
const REGISTRANTS: &str = "registrants";
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
                        "{other:?} is no part of a settings document: expected version, \
                         [service.\"PATTERN\"] tables, [zones] and [registrants] (settings of the process stay flags)"
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
        [TABLES, ZONES, REGISTRANTS, VERSION_KEY].contains(&key)
    }

    /// Returns the number of tables of services.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables().count()
    }

    /// Returns whether there are no tables of services, zones and registrants.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.zones.is_empty() && self.registrants.is_empty()
    }

    /// Returns the zones of networks, and the aliases of zones.
    #[must_use]
    pub fn zones(&self) -> &ZoneTable {
        &self.zones
    }

    /// Returns which prefixes of keys may register which services.
    #[must_use]
    pub fn registrants(&self) -> &Registrants {
        &self.registrants
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
        if !self.zones.is_empty() {
            writeln!(f, "[{ZONES}]")?;
            for (network, zone) in self.zones.networks() {
                writeln!(f, "{} = {}", Quoted(&network.to_string()), Quoted(zone))?;
            }
            writeln!(f, "[{ZONES}.{}]", zones::ALIAS)?;
            for (alias, zone) in self.zones.aliases() {
                writeln!(f, "{} = {}", Quoted(alias), Quoted(zone))?;
            }
        }
        if !self.registrants.is_empty() {
            writeln!(f, "[{REGISTRANTS}]")?;
            for (prefix, patterns) in self.registrants.rows() {
                let patterns: Vec<_> =
                    patterns.iter().map(|one| Quoted(one.as_str()).to_string()).collect();
                writeln!(f, "{} = [{}]", Quoted(prefix), patterns.join(", "))?;
            }
        }
        for table in self.tables() {
            writeln!(f, "[service.{}]", Quoted(table.pattern.as_str()))?;
            for setting in &table.settings {
                writeln!(f, "{} = {}", setting.key().as_str(), Quoted(&setting.to_string()))?;
            }
        }
        Ok(())
    }
}

/// A text as a basic string of TOML.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                control if control.is_control() => write!(f, "\\U{:08x}", u32::from(control))?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
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
        self.settings.iter().find(|setting| setting.key() == key).cloned()
    }
}
