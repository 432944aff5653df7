//! Per-service settings, and the layers that they come from.
//!
//! In: the flags of `serve` as defaults, and [`Document`]s of `[service."PATTERN"]`
//! tables from a file and from etcd. Out: the [`ServiceSettings`] of a service by its
//! canonical name, and the layer and pattern of each setting. Pure: the sources
//! (`source.rs`) read files and follow etcd.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ServiceName;

mod clients;
mod document;
mod health;
mod load;
mod pattern;
mod pattern_index;
mod ranges;
mod registrants;
mod shed;
pub mod source;
mod split;
mod subset;
mod value;
mod when_empty;
mod xds;
mod xds_keys;
mod zone_table;
mod zones;

pub use clients::Clients;
pub use document::{DOCUMENT_MAX, Document, Table, changes};
pub use health::{CheckTls, HealthCheck, HealthKind, HealthSettings, HealthTls};
pub use load::{LoadKind, LoadSettings};
pub use pattern::{Pattern, PatternError};
pub use registrants::Registrants;
pub use shed::{ShedMode, ShedSettings};
pub use split::{Percent, SplitBy, SplitKey, SplitSetting, SplitSettings};
pub use subset::{SubsetMode, SubsetSettings};
pub use value::{Key, Setting};
pub use when_empty::WhenEmpty;
pub use xds::{
    LbKind, LbSettings, OutlierKind, OutlierSettings, REQUESTS_DEFAULT, RetryCodes, RetrySettings,
    XdsSettings,
};
pub use xds_keys::{XdsKey, XdsSetting};
pub use zone_table::{Network, ZoneTable};
pub use zones::{ZoneMode, ZoneSettings};

/// The settings in force for one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceSettings {
    /// What clients see while the service has no usable backend.
    pub when_empty: WhenEmpty,
    /// How often clients report their calls; zero: never. A stream keeps the interval
    /// it began with.
    pub report_interval: Duration,
    /// The part of the last good list that stays listed even if probes find it dead, in
    /// percent.
    pub guard: u32,
    /// The longest time that a backend stays listed after its registration was lost;
    /// zero: it leaves at once.
    pub keep_lost: Duration,
    /// How often a registration without a lease is probed; zero: never.
    pub probe_unleased: Duration,
    /// How long a backend that joins takes to get its whole share; zero: none.
    pub slow_start: Duration,
    /// The longest time for which a backend that comes and goes again and again is not
    /// listed after it came back; zero: none.
    pub flap_delay: Duration,
    /// How the health of backends is checked.
    pub health: HealthSettings,
    /// Whether backends' reports of their load change their shares.
    pub load: LoadSettings,
    /// The share of calls or of clients that some of the backends get.
    pub split: SplitSettings,
    /// The most that a backend gets of the keys, in percent of its share; 0: no bound.
    pub hash_balance: u32,
    /// Whether clients prefer the backends of their own zone.
    pub zones: ZoneSettings,
    /// Whether clients get a part of the backends of a large service.
    pub subset: SubsetSettings,
    /// Whether clients drop calls while the service is overloaded.
    pub shed: ShedSettings,
    /// The clients that may ask for the service.
    pub clients: Clients,
    /// What xDS tells clients beside their backends.
    pub xds: XdsSettings,
}

/// The settings of all services, as layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    defaults: Arc<ServiceSettings>,
    file: Option<Arc<Document>>,
    store: Option<Arc<Document>>,
    zones: Arc<ZoneTable>,
    registrants: Arc<Registrants>,
}

/// The origin of a setting. A later layer wins, key by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// A flag of `serve`, its environment variable, its key in the file, or the
    /// built-in default.
    Flags,
    /// A `[service."PATTERN"]` table of the `--config` file.
    File,
    /// The document in etcd, which all replicas share.
    Store,
}

/// A setting in force, and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The setting.
    pub setting: Setting,
    /// The layer that sets it.
    pub layer: Layer,
    /// The pattern that sets it; `None` for the flags.
    pub pattern: Option<String>,
}

impl ServiceSettings {
    /// The built-in defaults, for tests and the demo; `serve` starts from its flags.
    pub const DEFAULT: Self = Self {
        when_empty: WhenEmpty::Wait,
        report_interval: Duration::from_secs(10),
        guard: 50,
        keep_lost: Duration::from_secs(600),
        probe_unleased: Duration::ZERO,
        slow_start: Duration::ZERO,
        flap_delay: Duration::ZERO,
        health: HealthSettings::DEFAULT,
        load: LoadSettings::DEFAULT,
        split: SplitSettings::NONE,
        hash_balance: 0,
        zones: ZoneSettings::DEFAULT,
        subset: SubsetSettings::DEFAULT,
        shed: ShedSettings::DEFAULT,
        clients: Clients::ALL,
        xds: XdsSettings::DEFAULT,
    };

    /// Returns the setting of a key.
    #[must_use]
    pub fn get(&self, key: Key) -> Setting {
        match key {
            Key::WhenEmpty => Setting::WhenEmpty(self.when_empty),
            Key::ReportInterval => Setting::ReportInterval(self.report_interval),
            Key::Guard => Setting::Guard(self.guard),
            Key::KeepLost => Setting::KeepLost(self.keep_lost),
            Key::ProbeUnleased => Setting::ProbeUnleased(self.probe_unleased),
            Key::SlowStart => Setting::SlowStart(self.slow_start),
            Key::FlapDelay => Setting::FlapDelay(self.flap_delay),
            Key::LoadKind => Setting::LoadKind(self.load.kind),
            Key::LoadInterval => Setting::LoadInterval(self.load.interval),
            Key::HealthKind => Setting::HealthKind(self.health.kind),
            Key::HealthName => Setting::HealthName(self.health.name.clone().unwrap_or_default()),
            Key::HealthInterval => Setting::HealthInterval(self.health.interval),
            Key::HealthTimeout => Setting::HealthTimeout(self.health.timeout),
            Key::HealthRise => Setting::HealthRise(self.health.rise),
            Key::HealthFall => Setting::HealthFall(self.health.fall),
            Key::HealthPanic => Setting::HealthPanic(self.health.panic),
            Key::HealthTls => Setting::HealthTls(self.health.tls),
            Key::HealthCa => Setting::HealthCa(self.health.ca.clone().unwrap_or_default()),
            Key::HealthTlsName => {
                Setting::HealthTlsName(self.health.tls_name.clone().unwrap_or_default())
            }
            Key::Split(key) => Setting::Split(self.split.get(key)),
            Key::HashBalance => Setting::HashBalance(self.hash_balance),
            Key::ZonesMode => Setting::ZonesMode(self.zones.mode),
            Key::ZonesKey => Setting::ZonesKey(self.zones.key().into()),
            Key::SubsetMode => Setting::SubsetMode(self.subset.mode),
            Key::SubsetLeast => Setting::SubsetLeast(self.subset.least),
            Key::ShedMode => Setting::ShedMode(self.shed.mode),
            Key::ShedMost => Setting::ShedMost(self.shed.most),
            Key::Clients => Setting::Clients(self.clients.clone()),
            Key::Xds(key) => Setting::Xds(self.xds.get(key)),
        }
    }

    /// Replaces one setting.
    pub fn set(&mut self, setting: Setting) {
        match setting {
            Setting::WhenEmpty(when_empty) => self.when_empty = when_empty,
            Setting::ReportInterval(interval) => self.report_interval = interval,
            Setting::Guard(percent) => self.guard = percent,
            Setting::KeepLost(keep) => self.keep_lost = keep,
            Setting::ProbeUnleased(every) => self.probe_unleased = every,
            Setting::SlowStart(window) => self.slow_start = window,
            Setting::FlapDelay(longest) => self.flap_delay = longest,
            Setting::LoadKind(kind) => self.load.kind = kind,
            Setting::LoadInterval(every) => self.load.interval = every,
            Setting::HealthKind(kind) => self.health.kind = kind,
            Setting::HealthName(name) => self.health.name = some(name),
            Setting::HealthInterval(every) => self.health.interval = every,
            Setting::HealthTimeout(longest) => self.health.timeout = longest,
            Setting::HealthRise(successes) => self.health.rise = successes,
            Setting::HealthFall(failures) => self.health.fall = failures,
            Setting::HealthPanic(percent) => self.health.panic = percent,
            Setting::HealthTls(tls) => self.health.tls = tls,
            Setting::HealthCa(file) => self.health.ca = some(file),
            Setting::HealthTlsName(name) => self.health.tls_name = some(name),
            Setting::Split(split) => self.split.set(split),
            Setting::HashBalance(percent) => self.hash_balance = percent,
            Setting::ZonesMode(mode) => self.zones.mode = mode,
            Setting::ZonesKey(key) => self.zones.set_key(key),
            Setting::SubsetMode(mode) => self.subset.mode = mode,
            Setting::SubsetLeast(backends) => self.subset.least = backends,
            Setting::ShedMode(mode) => self.shed.mode = mode,
            Setting::ShedMost(percent) => self.shed.most = percent,
            Setting::Clients(clients) => self.clients = clients,
            Setting::Xds(setting) => self.xds.set(setting),
        }
    }
}

impl Settings {
    /// Makes settings that are the same for every service.
    #[must_use]
    pub fn new(defaults: ServiceSettings) -> Self {
        let defaults = Arc::new(defaults);
        let (zones, registrants) = Default::default();
        Self { defaults, file: None, store: None, zones, registrants }
    }

    /// Returns settings with the same defaults and with these documents.
    #[must_use]
    pub fn with(&self, file: Option<Arc<Document>>, store: Option<Arc<Document>>) -> Self {
        let some = |document: &Arc<Document>| !document.is_empty();
        let (defaults, file, store) =
            (self.defaults.clone(), file.filter(some), store.filter(some));
        let tables = [&file, &store].into_iter().flatten().map(|document| document.zones());
        let zones = ZoneTable::merged(tables);
        // An equal table is shared, so that it is compared at once.
        let zones = if *self.zones == zones { self.zones.clone() } else { Arc::new(zones) };
        let tables = [&file, &store].into_iter().flatten().map(|document| document.registrants());
        let registrants = Registrants::merged(tables);
        let registrants = match *self.registrants == registrants {
            true => self.registrants.clone(),
            false => Arc::new(registrants),
        };
        Self { defaults, file, store, zones, registrants }
    }

    /// Returns the zones of clients' addresses, and the aliases of zones. etcd's document
    /// wins over the file, network by network.
    #[must_use]
    pub fn zones(&self) -> &Arc<ZoneTable> {
        &self.zones
    }

    /// Returns which prefixes of keys may register which services. etcd's document wins over
    /// the file, prefix by prefix.
    #[must_use]
    pub fn registrants(&self) -> &Arc<Registrants> {
        &self.registrants
    }

    /// Returns the document of a layer, if it has tables.
    #[must_use]
    pub fn document(&self, layer: Layer) -> Option<&Arc<Document>> {
        match layer {
            Layer::Flags => None,
            Layer::File => self.file.as_ref(),
            Layer::Store => self.store.as_ref(),
        }
    }

    /// Returns the settings in force for a service.
    #[must_use]
    pub fn for_service(&self, service: &ServiceName) -> Arc<ServiceSettings> {
        // This is called for each key that is read, so it computes the
        // canonical name only if it is needed.
        match (&self.file, &self.store) {
            (None, None) => self.defaults.clone(),
            _ => self.for_canonical(&service.canonical()),
        }
    }

    /// Returns the settings in force for a service, by its canonical name. Services
    /// that no pattern matches share one value.
    #[must_use]
    pub fn for_canonical(&self, canonical: &str) -> Arc<ServiceSettings> {
        let mut settings: Option<ServiceSettings> = None;
        // The weakest first, so that the strongest is set last.
        for document in [&self.file, &self.store].into_iter().flatten() {
            let tables: Vec<&Table> = document.matching(canonical).collect();
            for setting in tables.into_iter().rev().flat_map(Table::settings) {
                settings.get_or_insert_with(|| (*self.defaults).clone()).set(setting.clone());
            }
        }
        settings.map_or_else(|| self.defaults.clone(), Arc::new)
    }

    /// Returns the settings in force for a service with their origins, in the order of
    /// the keys.
    #[must_use]
    pub fn explain(&self, canonical: &str) -> Vec<Origin> {
        // The strongest first; computed once for all keys.
        let mut tables = Vec::new();
        for layer in [Layer::Store, Layer::File] {
            let matching = self.document(layer).into_iter();
            let matching = matching.flat_map(|document| document.matching(canonical));
            tables.extend(matching.map(|table| (layer, table)));
        }
        let origin = |key: Key| {
            let set = |&(layer, table): &(Layer, &Table)| {
                let pattern = Some(table.pattern().to_string());
                table.setting(key).map(|setting| Origin { setting, layer, pattern })
            };
            // A table that sets the share of a split, in one way, ends the other ways.
            let is_share = |key| matches!(key, Key::Split(key) if key.is_share());
            let sets_share = |(_, table): &&(Layer, &Table)| {
                table.settings().iter().any(|setting| is_share(setting.key()))
            };
            let found = match is_share(key) {
                true => tables.iter().find(sets_share).and_then(set),
                false => tables.iter().find_map(set),
            };
            found.unwrap_or_else(|| {
                let setting = self.defaults.get(key);
                Origin { setting, layer: Layer::Flags, pattern: None }
            })
        };
        Key::ALL.into_iter().map(origin).collect()
    }

    /// Returns the first rule for clients that names certificates, after its place.
    #[must_use]
    pub fn rule_of_certificates(&self) -> Option<(String, String)> {
        if let Some(rule) = self.defaults.clients.first_of_certificates() {
            return Some(("--clients".to_owned(), rule));
        }
        let documents = [&self.file, &self.store].into_iter().flatten();
        documents.flat_map(|document| document.tables()).find_map(|table| {
            let Setting::Clients(clients) = table.setting(Key::Clients)? else { return None };
            let place = format!("[service.\"{}\"] clients", table.pattern());
            Some((place, clients.first_of_certificates()?))
        })
    }

    /// Returns the patterns that match none of these canonical names. The default `*`
    /// counts as matching.
    #[must_use]
    pub fn unmatched(&self, canonical: &[String]) -> Vec<(Layer, String)> {
        let mut found = Vec::new();
        for layer in [Layer::Store, Layer::File] {
            let Some(document) = self.document(layer) else { continue };
            found.extend(document.unmatched(canonical).into_iter().map(|text| (layer, text)));
        }
        found
    }
}

impl Layer {
    /// Returns the name for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flags => "flags",
            Self::File => "file",
            Self::Store => "etcd",
        }
    }
}

impl From<ServiceSettings> for Arc<Settings> {
    fn from(defaults: ServiceSettings) -> Self {
        Self::new(Settings::new(defaults))
    }
}

/// Returns a text, unless it is empty.
fn some(text: Arc<str>) -> Option<Arc<str>> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
