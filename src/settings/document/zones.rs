//! Reads the table `[zones]` of a settings document, and collects all problems. Pure.
//!
//! In: the TOML of the table. Out: a [`ZoneTable`] of all that could be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::super::{Network, ZoneTable};
use super::ZONES;
use super::reader::{Reader, VALUE_MAX, short};
use crate::tables::Value;

/// The table of aliases within the table of zones.
pub(super) const ALIAS: &str = "alias";

impl Reader<'_, '_> {
    pub(super) fn zones(&mut self, value: &Value<'_>) -> ZoneTable {
        let DeValue::Table(zones) = value.get_ref() else {
            let found = value.get_ref().type_str();
            let told =
                format!("zones is {found}: write [zones] and \"10.1.0.0/16\" = \"a\" below it");
            self.problems.add(value.span(), told);
            return ZoneTable::default();
        };
        let (mut networks, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in zones {
            let text: &str = name.get_ref();
            if let (ALIAS, DeValue::Table(all)) = (text, value.get_ref()) {
                aliases = self.aliases(all);
                continue;
            }
            let network = match Network::parse(text) {
                Ok(network) => network,
                Err(error) => {
                    let told = format!("[{ZONES}]: {}", short(&error));
                    self.problems.add(name.span(), told);
                    continue;
                }
            };
            let Some(zone) = self.zone(value) else { continue };
            if networks.insert(network, zone.clone()).is_some_and(|other| other != zone) {
                let told = format!("[{ZONES}]: {network} has two zones: name it once");
                self.problems.add(name.span(), told);
            }
        }
        ZoneTable::new(networks, aliases)
    }

    fn aliases(&mut self, all: &DeTable<'_>) -> BTreeMap<Arc<str>, Arc<str>> {
        let mut aliases = BTreeMap::new();
        let is_alias =
            |zone: &str| all.keys().any(|other| other.get_ref().eq_ignore_ascii_case(zone));
        for (name, value) in all {
            let text: &str = name.get_ref();
            let Some(zone) = self.zone(value) else { continue };
            if is_alias(&zone) {
                let told = format!(
                    "[{ZONES}.{ALIAS}]: {:?} stands for {zone:?}, which is an alias itself: \
                     name the zone that it stands for",
                    short(text)
                );
                self.problems.add(value.span(), told);
            }
            let lower: Arc<str> = text.to_lowercase().into();
            if aliases.insert(lower, zone.clone()).is_some_and(|other| other != zone) {
                let told =
                    format!("[{ZONES}.{ALIAS}]: {:?} has two zones: name it once", short(text));
                self.problems.add(name.span(), told);
            }
        }
        aliases
    }

    /// Reads the name of a zone, in lower case.
    fn zone(&mut self, value: &Value<'_>) -> Option<Arc<str>> {
        let told = match value.get_ref() {
            DeValue::String(text) if text.is_empty() => "the name of a zone is empty".to_owned(),
            DeValue::String(text) if text.len() > VALUE_MAX => format!(
                "the zone {:?} has {} bytes: at most {VALUE_MAX} are allowed",
                short(text),
                text.len()
            ),
            DeValue::String(text) if text.chars().any(char::is_control) => {
                format!("the zone {:?} holds a control character", short(text))
            }
            DeValue::String(text) => return Some(text.to_lowercase().into()),
            other => format!("it is {}: write the name of a zone", other.type_str()),
        };
        self.problems.add(value.span(), format!("[{ZONES}]: {told}"));
        None
    }
}
