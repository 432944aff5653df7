//! Reads the tables of a settings document, and collects all problems. Pure.
//!
//! In: a TOML table, and where to add problems. Out: a [`Document`]. It returns what it
//! could read; whether the document is used is the caller's decision.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

use super::super::clients::CLIENTS_MAX;
use super::super::pattern_index::PatternIndex;
use super::super::{Key, Pattern, Setting, SplitKey};
use super::super::{split, xds_keys};
use super::{Document, REGISTRANTS, TABLES, Table, VERSION_KEY, ZONES};
use crate::model::name::NAME_MAX;
use crate::tables::{Name, Problems, Value};

/// Reads one document.
pub(super) struct Reader<'a, 'b> {
    pub(super) problems: &'a mut Problems<'b>,
}

/// A table with the places of its settings.
struct Placed {
    table: Table,
    places: BTreeMap<Key, Range<usize>>,
}

/// The most tables with a star. Each may be compared with the name of each service.
const STARRED_MAX: usize = 256;
/// The longest text of a value, in bytes. No valid value is longer, except a ramp.
pub(super) const VALUE_MAX: usize = 64;
/// The longest text of a ramp, in bytes: about twenty steps.
const RAMP_MAX: usize = 256;
/// The version of documents that this program reads.
const VERSION: &str = "1";

impl Reader<'_, '_> {
    pub(super) fn document(&mut self, root: &DeTable<'_>) -> Document {
        let (mut tables, mut document) = (Vec::new(), Document::default());
        for (key, value) in root {
            match &**key.get_ref() {
                TABLES => tables = self.services(value),
                ZONES => document.zones = self.zones(value),
                REGISTRANTS => document.registrants = self.registrants(value),
                VERSION_KEY => self.version(value),
                _ => {}
            }
        }
        self.contradictions(&tables);
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
        let mut placed =
            Placed { table: Table { pattern, settings: Vec::new() }, places: BTreeMap::new() };
        for (name, value) in settings {
            let text: &str = name.get_ref();
            match value.get_ref() {
                DeValue::Table(inner) if Key::is_table(text) => {
                    for (name, value) in inner {
                        self.setting(
                            &format!("{text}.{}", name.get_ref()),
                            name,
                            value,
                            &mut placed,
                        );
                    }
                }
                _ => self.setting(text, name, value, &mut placed),
            }
        }
        placed.table.settings.sort_by_key(Setting::key);
        let settings = &placed.table.settings;
        for (key, told) in [split::contradiction(settings), xds_keys::contradiction(settings)]
            .into_iter()
            .flatten()
        {
            let (pattern, place) = (&placed.table.pattern, placed.places.get(&key));
            let told = format!("[service.\"{pattern}\"] {}: {told}", key.as_str());
            self.problems.add(place.cloned().unwrap_or_default(), told);
        }
        placed
    }

    /// Reads the setting with this full name into a table.
    fn setting(&mut self, text: &str, name: &Name<'_>, value: &Value<'_>, placed: &mut Placed) {
        let pattern = &placed.table.pattern;
        let Some(key) = Key::parse(text) else {
            let known = unknown_key(text, value.get_ref().is_table());
            let told = format!("[service.\"{pattern}\"]: {:?} is no setting: {known}", short(text));
            self.problems.add(name.span(), told);
            return;
        };
        let setting = match value.get_ref() {
            DeValue::String(text) => parse(key, text),
            DeValue::Integer(number) if number.radix() == 10 => parse(key, number.as_str()),
            DeValue::Array(rules) if key == Key::Clients => {
                joined(rules).and_then(|text| parse(key, &text))
            }
            other => Err(format!(
                "it is {}: write text, or a whole number where one is meant",
                other.type_str()
            )),
        };
        match setting {
            Ok(setting) => {
                placed.places.insert(key, name.span());
                placed.table.settings.push(setting);
            }
            Err(error) => {
                let told = format!("[service.\"{pattern}\"] {}: {error}", key.as_str());
                self.problems.add(value.span(), told);
            }
        }
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
                    let theirs = [Some(setting.key()), rival(setting.key())].into_iter().flatten();
                    let theirs = theirs.filter_map(|key| other.table.setting(key)).next()?;
                    (theirs != *setting).then(|| (setting.clone(), theirs))
                };
                let conflicts: Vec<_> = one.table.settings.iter().filter_map(conflict).collect();
                if conflicts.is_empty() || !pattern.overlaps(against) {
                    continue;
                }
                for (ours, theirs) in conflicts {
                    let key = ours.key();
                    let place = other.places.get(&theirs.key()).cloned().unwrap_or_default();
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

/// Returns the key that says the same in another way.
fn rival(key: Key) -> Option<Key> {
    match key {
        Key::Split(SplitKey::Percent) => Some(Key::Split(SplitKey::Ramp)),
        Key::Split(SplitKey::Ramp) => Some(Key::Split(SplitKey::Percent)),
        _ => None,
    }
}

/// Returns the remedy for a name that is no setting.
fn unknown_key(text: &str, is_table: bool) -> String {
    if Key::is_table(text) {
        return format!("write {text} = {{ … }} with some of {}", keys_of(Some(text)));
    }
    match Key::parse(&text.replace('_', "-")) {
        Some(key) => format!("write {}", key.as_str()),
        None => match text.split_once('.') {
            Some((table, _)) if Key::is_table(table) => {
                format!("expected one of {}", keys_of(Some(table)))
            }
            _ if is_table => {
                "a pattern with a dot stands in quotes, as in [service.\"greet.rpc\"]".to_owned()
            }
            _ => format!("expected one of {}", keys_of(None)),
        },
    }
}

/// Returns the names of the keys of a table, or of the keys and tables of a service.
fn keys_of(table: Option<&str>) -> String {
    let names = Key::ALL.iter().map(|key| key.as_str());
    let mut names: Vec<_> = match table {
        Some(table) => {
            names.filter_map(|name| name.strip_prefix(table)?.strip_prefix('.')).collect()
        }
        None => names.map(|name| name.split_once('.').map_or(name, |(table, _)| table)).collect(),
    };
    names.dedup();
    names.join(", ")
}

/// Returns a list of texts as one text, with commas.
fn joined(all: &DeArray<'_>) -> Result<String, String> {
    let text = |one: &Value<'_>| match one.get_ref() {
        DeValue::String(text) if text.contains(',') => {
            Err(format!("{:?} has a comma: make it two texts of the list", short(text)))
        }
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("{} is in the list: write text", other.type_str())),
    };
    let all: Vec<_> = all.iter().map(text).collect::<Result<_, _>>()?;
    match all.is_empty() {
        true => Err("the list is empty: write \"nobody\" for no client at all".to_owned()),
        false => Ok(all.join(", ")),
    }
}

/// Parses a setting, unless its text is longer than any valid one.
fn parse(key: Key, text: &str) -> Result<Setting, String> {
    let most = match key {
        Key::Split(SplitKey::Ramp) => RAMP_MAX,
        Key::Clients => CLIENTS_MAX,
        _ => VALUE_MAX,
    };
    if text.len() > most {
        let (short, bytes) = (short(text), text.len());
        return Err(format!("{short:?} has {bytes} bytes: at most {most} are allowed"));
    }
    Setting::parse(key, text)
}

/// Returns the beginning of a text, for people.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
