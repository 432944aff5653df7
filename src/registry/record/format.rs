//! The formats and their names.
//!
//! In: the name of a format. Out: a [`Format`], with its default weight and the end of
//! its prefixes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::PrefixError;
use super::decoder::Decoder;
use super::presets;
use crate::model::Weight;

/// The format of the keys and values below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Detected by key and value if it is unambiguous; see `auto`.
    Auto,
    /// `host:port`.
    Plain,
    /// `{"addr":"host:port","metadata":{…}}`.
    Qsf,
    /// `{"Op":0,"Addr":"host:port","Metadata":…}`, as etcd's own client
    /// libraries write it.
    EtcdNaming,
    /// `host:port` under a key that ends with the number of a lease.
    GoZero,
    /// go-kratos version 2 and later.
    Kratos,
    /// bilibili's kratos, version 1.
    KratosV1,
    /// Several nodes in one value.
    GoMicro,
    /// The address in the key, the rest as a query string.
    Rpcx,
    /// Dubbo's interface level: a URL in the key.
    Dubbo,
    /// Dubbo's application level.
    DubboApp,
    /// `CloudWeGo`'s RPC framework.
    Kitex,
    /// `CloudWeGo`'s HTTP framework.
    Hertz,
    /// DNS names as paths, for CoreDNS.
    Skydns,
    /// APISIX's upstreams: one key holds all backends.
    Apisix,
    /// The framework of douyu, since 2021.
    Jupiter,
    /// The framework of douyu, until 2021.
    Jupiter2020,
    /// Several endpoints in one key.
    GoFrame,
    /// `host:port` or a URL, anywhere.
    GoKit,
    /// `host:port`, written by gliderlabs' registrator.
    Registrator,
    /// Described by the operator.
    Custom(Arc<Decoder>),
}

/// The formats that operators describe, by name.
pub type Customs = BTreeMap<String, Arc<Decoder>>;

/// All named formats, in the order in which they are tried on a key that cannot be
/// decoded: the most specific first.
pub const NAMED: [(&str, Format); 20] = [
    ("etcd-naming", Format::EtcdNaming),
    ("qsf", Format::Qsf),
    ("kratos", Format::Kratos),
    ("kratos-v1", Format::KratosV1),
    ("go-micro", Format::GoMicro),
    ("rpcx", Format::Rpcx),
    ("dubbo", Format::Dubbo),
    ("dubbo-app", Format::DubboApp),
    ("kitex", Format::Kitex),
    ("hertz", Format::Hertz),
    ("jupiter", Format::Jupiter),
    ("jupiter-2020", Format::Jupiter2020),
    ("goframe", Format::GoFrame),
    ("apisix", Format::Apisix),
    ("skydns", Format::Skydns),
    ("plain", Format::Plain),
    ("go-zero", Format::GoZero),
    ("registrator", Format::Registrator),
    ("go-kit", Format::GoKit),
    ("auto", Format::Auto),
];

/// The beginning of the names of formats that operators describe.
const CUSTOM: &str = "custom:";

impl Format {
    /// Parses the name of a format, or `custom:NAME` of one of `customs`.
    ///
    /// # Errors
    /// If the format is unknown.
    pub fn parse(text: &str, customs: &Customs) -> Result<Self, PrefixError> {
        if let Some(name) = text.strip_prefix(CUSTOM) {
            let custom = customs.get(name).map(|decoder| Self::Custom(decoder.clone()));
            return custom.ok_or_else(|| PrefixError::Custom(name.to_owned()));
        }
        let named = NAMED.into_iter().find(|(name, _)| *name == text);
        named.map(|(_, format)| format).ok_or_else(|| PrefixError::Format(text.to_owned()))
    }

    /// Returns the weight of a registration that has none. Each framework has its own
    /// default.
    #[must_use]
    pub fn default_weight(&self) -> Weight {
        self.decoder().map_or(Weight::DEFAULT, |decoder| Weight(decoder.default_weight))
    }

    /// Returns the description of the format; `None` for formats that have their own
    /// functions.
    pub(super) fn decoder(&self) -> Option<&Decoder> {
        match self {
            Self::Custom(decoder) => Some(decoder),
            other => presets::of(other),
        }
    }

    /// Returns the path with the end that bounds it, so that `foo` never matches the
    /// keys of `foo2`. Jupiter's keys have colons before their only slash.
    pub(super) fn bounded(&self, path: &str) -> String {
        let end = match self {
            Self::Jupiter if path.matches(':').count() < 3 => ':',
            Self::Auto if path.ends_with(':') => ':',
            _ => '/',
        };
        format!("{}{end}", path.trim_end_matches(end))
    }
}

impl FromStr for Format {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, &Customs::new())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Custom(decoder) = self {
            return write!(f, "{CUSTOM}{}", decoder.name);
        }
        let named = NAMED.iter().find(|(_, format)| format == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}
