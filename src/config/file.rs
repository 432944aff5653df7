//! Reads the TOML file of settings (`--config`).
//!
//! In: TOML whose keys are named like the flags of `serve`, with `[format.NAME]` and
//! `[service."PATTERN"]` tables. Out: the values that neither a flag nor a variable sets,
//! the origin of each setting, and all problems with their places. No problem hides
//! another or shows text that may be a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Deserialize;
use toml::de::ValueDeserializer;
use tracing::warn;

use super::{ServeArgs, formats};
use crate::registry::record::Customs;
use crate::settings::Document;
use crate::tables::{self, Problem, Problems, Toml};

/// The settings of the process. Each flag has a key of the same name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ProcessSettings {
    log: Option<Text>,
    log_format: Option<Text>,
    listen: Option<Text>,
    etcd: Option<Texts>,
    etcd_user: Option<Text>,
    etcd_password_file: Option<Text>,
    etcd_ca: Option<Text>,
    etcd_cert: Option<Text>,
    etcd_key: Option<Text>,
    registry_listen: Option<Text>,
    registry_open_to_network: Option<Text>,
    prefix: Option<Texts>,
    domain: Option<Text>,
    dns_listen: Option<Text>,
    dns_secondary: Option<Texts>,
    skydns_prefix: Option<Text>,
    advertise: Option<Text>,
    balancer_hosts: Option<Texts>,
    announce: Option<Text>,
    spread: Option<Text>,
    zone: Option<Text>,
    admin_listen: Option<Text>,
    admin_host: Option<Texts>,
    admin_cert: Option<Text>,
    admin_key: Option<Text>,
    admin_reader_tokens: Option<Text>,
    admin_operator_tokens: Option<Text>,
    admin_open_to_network: Option<Text>,
    when_empty: Option<Text>,
    reflection: Option<Text>,
    connections_per_peer: Option<Text>,
    report_interval: Option<Text>,
    state_dir: Option<Text>,
    keep_lost: Option<Text>,
    guard: Option<Text>,
    probe_unleased: Option<Text>,
    slow_start: Option<Text>,
    xds_reports: Option<Text>,
    flap_delay: Option<Text>,
    clients: Option<Texts>,
    tls_cert: Option<Text>,
    tls_key: Option<Text>,
    tls_client_ca: Option<Text>,
    tls_client_crl: Option<Text>,
    max_connection_age: Option<Text>,
    audit_log: Option<Text>,
}

/// One text. A number is read as the text of its digits.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected text or a whole number")]
enum Text {
    Text(String),
    Number(i64),
}

/// One text, or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected text, a whole number or a list of text")]
enum Texts {
    One(Text),
    List(Vec<String>),
}

/// The contents of a file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// The valid settings of the process.
    pub process: ProcessSettings,
    /// The formats that the file describes.
    pub customs: Customs,
    /// The tables of services, or `None` if they have problems.
    pub services: Option<Arc<Document>>,
    /// Line and column of each key of the process.
    places: BTreeMap<String, (usize, usize)>,
    values: Values,
}

/// The origin of the settings of a process.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The problems of the file.
    pub problems: Vec<String>,
    /// The file's `log` and `log-format`.
    pub log: (Option<String>, Option<String>),
    /// The formats that the file describes.
    pub(super) customs: Customs,
    /// The file, if its tables of services are valid.
    pub(super) file: Option<FileInUse>,
    /// The origin of each flag's value: a place in the file (`FILE:LINE:COLUMN`) or a
    /// variable. The key is the flag with its dashes.
    places: BTreeMap<String, String>,
}

/// A file in use, which may change while the process runs.
#[derive(Debug, Clone)]
pub(super) struct FileInUse {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) services: Arc<Document>,
    values: Values,
    /// Keys that flags or variables set.
    overridden: BTreeSet<String>,
}

/// The keys of the process and their values.
type Values = BTreeMap<String, Option<toml::Value>>;

impl File {
    /// Reads a file's text. Ignores the keys in `overridden`, which flags or variables set.
    /// Returns the valid contents and all problems.
    #[must_use]
    pub fn parse(text: &str, overridden: &BTreeSet<String>) -> (Self, Vec<Problem>) {
        tables::parse(text, |toml, problems| Self::read(toml, overridden, problems))
    }

    fn read(toml: &Toml<'_>, overridden: &BTreeSet<String>, problems: &mut Problems<'_>) -> Self {
        let mut file = Self { values: values(toml, overridden), ..Self::default() };
        let left = of_process(toml, overridden);
        let (formats, process): (Vec<_>, Vec<_>) =
            left.partition(|(key, _)| key.get_ref() == formats::KEY);
        for (key, _) in &process {
            let place = toml.position(key.span().start);
            file.places.insert(key.get_ref().to_string(), place);
        }
        file.process = tables::typed(process, |key, value, why| {
            let name = key.get_ref();
            problems.add(
                key.span(),
                match why {
                    Some(expected) => {
                        format!("{name} is {}: {expected}", value.get_ref().type_str())
                    }
                    None => format!("{name:?} is no setting: {}", remedy_for(name)),
                },
            );
        });
        for (key, value) in formats {
            file.customs = formats::customs(key, value, problems);
        }
        file.services = Document::within(toml, problems).map(Arc::new);
        file
    }
}

/// Returns the remedy for a key that is not a setting.
fn remedy_for(key: &str) -> String {
    let dashed = key.replace('_', "-");
    match key {
        "config" => "a file cannot name another".to_owned(),
        _ if keys().contains(&&*dashed) => format!("write {dashed}"),
        _ => "settings are named like the flags of serve".to_owned(),
    }
}

/// Returns the keys of the process, which are named like the flags.
#[must_use]
pub fn keys() -> &'static [&'static str] {
    tables::fields::<ProcessSettings>()
}

/// Returns the entries for the process that are not in `overridden`. Leaves out tables of
/// services and entries on broken lines.
fn of_process<'a, 'b>(
    toml: &'b Toml<'a>,
    overridden: &'b BTreeSet<String>,
) -> impl Iterator<Item = (&'b tables::Name<'a>, &'b tables::Value<'a>)> {
    toml.root()
        .iter()
        .filter(|(key, _)| {
            !Document::has_key(key.get_ref()) && !overridden.contains(&**key.get_ref())
        })
        .filter(|(key, _)| !toml.breaks_at(key.span().start))
}

fn values(toml: &Toml<'_>, overridden: &BTreeSet<String>) -> Values {
    let value = |value: &tables::Value<'_>| {
        toml::Value::deserialize(ValueDeserializer::from(value.clone())).ok()
    };
    let entries = of_process(toml, overridden);
    entries.map(|(key, entry)| (key.get_ref().to_string(), value(entry))).collect()
}

impl ServeArgs {
    /// Records the origin of each setting. If `--config` names a file, fills in the values
    /// that neither a flag nor a variable sets. `matches` are the matches that these arguments
    /// were made from.
    pub fn complete(&mut self, matches: &ArgMatches) {
        let mut overridden = BTreeSet::new();
        for key in keys().iter().copied().chain(["config"]) {
            let id = key.replace('-', "_");
            let known = matches.try_contains_id(&id).is_ok();
            match known.then(|| matches.value_source(&id)).flatten() {
                Some(ValueSource::CommandLine) => {}
                Some(ValueSource::EnvVariable) => {
                    let variable = format!("LOOKASIDE_{}", id.to_uppercase());
                    self.sources.places.insert(format!("--{key}"), variable);
                }
                _ => continue,
            }
            overridden.insert(key.to_owned());
        }
        // `config` inside a file is always a problem, also if a flag names the file.
        overridden.remove("config");
        let Some(path) = self.config.clone().map(PathBuf::from) else { return };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let problem = format!("--config: cannot read {path:?}: {error}");
                self.sources.problems.push(self.sources.located(problem));
                return;
            }
        };
        let (file, problems) = File::parse(&text, &overridden);
        self.sources.problems.extend(problems.iter().map(|problem| located(&path, problem)));
        for (key, (line, column)) in file.places {
            let place = format!("{}:{line}:{column}", path.display());
            self.sources.places.insert(format!("--{key}"), place);
        }
        self.sources.customs = file.customs;
        let values = file.values;
        self.sources.file =
            file.services.map(|services| FileInUse { path, text, services, values, overridden });
        self.fill(file.process);
    }

    /// Sets the values that the file gives.
    fn fill(&mut self, file: ProcessSettings) {
        macro_rules! fill {
            ($($key:ident => $setting:expr,)*) => {
                // The pattern names every field, so the compiler finds a forgotten one.
                let ProcessSettings { $($key),* } = file;
                $(if let Some(value) = $key { $setting = value.into(); })*
            };
        }
        fill! {
            log => self.sources.log.0,
            log_format => self.sources.log.1,
            listen => self.listen,
            etcd => self.etcd.etcd,
            etcd_user => self.etcd.etcd_user,
            etcd_password_file => self.etcd.etcd_password_file,
            etcd_ca => self.etcd.etcd_ca,
            etcd_cert => self.etcd.etcd_cert,
            etcd_key => self.etcd.etcd_key,
            registry_listen => self.registry.registry_listen,
            registry_open_to_network => self.registry.registry_open_to_network,
            prefix => self.prefix,
            domain => self.domain,
            dns_listen => self.dns.dns_listen,
            dns_secondary => self.dns.dns_secondary,
            skydns_prefix => self.dns.skydns_prefix,
            advertise => self.replica.advertise,
            balancer_hosts => self.replica.balancer_hosts,
            announce => self.replica.announce,
            spread => self.replica.spread,
            zone => self.replica.zone,
            admin_listen => self.admin.admin_listen,
            admin_host => self.admin.admin_host,
            admin_cert => self.admin.admin_cert,
            admin_key => self.admin.admin_key,
            admin_reader_tokens => self.admin.admin_reader_tokens,
            admin_operator_tokens => self.admin.admin_operator_tokens,
            admin_open_to_network => self.admin.admin_open_to_network,
            when_empty => self.when_empty,
            reflection => self.reflection,
            connections_per_peer => self.connections_per_peer,
            report_interval => self.report_interval,
            state_dir => self.faults.state_dir,
            keep_lost => self.faults.keep_lost,
            guard => self.faults.guard,
            probe_unleased => self.faults.probe_unleased,
            slow_start => self.policy.slow_start,
            xds_reports => self.policy.xds_reports,
            flap_delay => self.policy.flap_delay,
            clients => self.policy.clients,
            tls_cert => self.tls_cert,
            tls_key => self.tls_key,
            tls_client_ca => self.tls_client_ca,
            tls_client_crl => self.access.tls_client_crl,
            max_connection_age => self.access.max_connection_age,
            audit_log => self.access.audit_log,
        }
    }
}

impl Sources {
    /// Returns the problem of a flag. If the flag's value comes from the file or a variable,
    /// the problem begins with that origin.
    #[must_use]
    pub fn located(&self, problem: String) -> String {
        let flag = problem.find([':', ' ']).map(|end| &problem[..end]);
        match flag.and_then(|flag| self.places.get(flag)) {
            Some(place) => format!("{place}: {problem}"),
            None => problem,
        }
    }
}

impl FileInUse {
    /// Returns the tables of services in the changed text of the file. Logs the settings of
    /// the process that changed, because they need a restart.
    ///
    /// # Errors
    /// Returns all problems of the text with their places, if the tables cannot be used.
    pub(super) fn reparse(&self, text: &str) -> Result<Arc<Document>, Vec<String>> {
        let ((services, now), problems) = tables::parse(text, |toml, problems| {
            (Document::within(toml, problems), values(toml, &self.overridden))
        });
        let Some(services) = services else {
            return Err(problems.iter().map(|problem| located(&self.path, problem)).collect());
        };
        let changed = self.changed(&now).join(", ");
        if !changed.is_empty() {
            let (file, remedy) = (self.path.display(), "restart lookaside, or undo the change");
            warn!(%file, changed, remedy, "settings that need a restart changed in the file");
        }
        Ok(Arc::new(services))
    }

    /// Returns the keys whose values differ from those at the start.
    fn changed<'a>(&'a self, now: &'a Values) -> Vec<&'a str> {
        let keys: BTreeSet<_> = self.values.keys().chain(now.keys()).collect();
        let differs = |key: &&String| self.values.get(*key) != now.get(*key);
        keys.into_iter().filter(differs).map(String::as_str).collect()
    }
}

/// Returns `FILE:LINE:COLUMN: text`.
fn located(path: &Path, problem: &Problem) -> String {
    format!("{}:{problem}", path.display())
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Text(text) => text,
            Text::Number(number) => number.to_string(),
        }
    }
}

impl From<Text> for Option<String> {
    fn from(text: Text) -> Self {
        Some(text.into())
    }
}

/// Splits at commas, as a flag does.
impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        let all = match texts {
            Texts::One(text) => vec![text.into()],
            Texts::List(all) => all,
        };
        all.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
    }
}

impl From<Texts> for String {
    fn from(texts: Texts) -> Self {
        Vec::from(texts).join(",")
    }
}

impl From<Texts> for Option<String> {
    fn from(texts: Texts) -> Self {
        Some(texts.into())
    }
}
