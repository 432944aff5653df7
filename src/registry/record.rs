//! Stand-in: the plain format alone, until the decoders are merged.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Registration, Rejected};
use crate::model::{HostPort, Meta, ServiceName, Weight};

/// How keys and values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Found by looking.
    Auto,
    /// `host:port`.
    Plain,
    /// QSF's JSON.
    Qsf,
    /// etcd's own naming JSON.
    EtcdNaming,
}

/// Where registrations are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// As given by the user.
    pub path: String,
    /// How they are written there.
    pub format: Format,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "qsf" => Ok(Self::Qsf),
            "etcd-naming" => Ok(Self::EtcdNaming),
            _ => Err(format!("unknown format {text:?}: expected auto, plain, qsf or etcd-naming")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Qsf => "qsf",
            Self::EtcdNaming => "etcd-naming",
        })
    }
}

impl Prefix {
    /// # Errors
    /// When the value is no address.
    pub fn decode(&self, key: &[u8], value: &[u8]) -> Result<Vec<Registration>, Rejected> {
        let shown = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
        let rejected = |reason: String| Rejected { reason, value: shown.clone() };
        let key = std::str::from_utf8(key).map_err(|e| rejected(e.to_string()))?;
        let Some(rest) = key.strip_prefix(&self.path) else { return Ok(vec![]) };
        let rest = match (self.path.ends_with('/'), rest.strip_prefix('/')) {
            (true, _) => rest,
            (false, Some(rest)) => rest,
            (false, None) => return Ok(vec![]),
        };
        let own = self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let (service, id) = rest.rsplit_once('/').unwrap_or((own, rest));
        let service = ServiceName::new(service).map_err(|e| rejected(e.to_string()))?;
        let text = std::str::from_utf8(value).map_err(|e| rejected(e.to_string()))?;
        let address = HostPort::parse(text).map_err(|e| rejected(e.to_string()))?;
        let meta = Arc::new(Meta::new());
        Ok(vec![Registration { service, id: id.into(), address, weight: Weight::DEFAULT, meta }])
    }
}

/// # Errors
/// When the format cannot carry it.
pub fn encode(format: Format, registration: &Registration) -> Result<String, String> {
    let rich = registration.weight != Weight::DEFAULT || !registration.meta.is_empty();
    match format {
        Format::Plain if rich => Err("the format plain carries no weight and no metadata".into()),
        Format::Plain => Ok(registration.address.to_string()),
        Format::Auto if !rich => Ok(registration.address.to_string()),
        Format::Auto | Format::EtcdNaming => {
            let mut meta: BTreeMap<String, String> = (*registration.meta).clone();
            if registration.weight != Weight::DEFAULT {
                meta.insert("weight".into(), registration.weight.0.to_string());
            }
            let address = registration.address.to_string();
            Ok(serde_json::json!({ "Op": 0, "Addr": address, "Metadata": meta }).to_string())
        }
        Format::Qsf => Err("not here yet".into()),
    }
}

/// The key under which a registration is found.
#[must_use]
pub fn key(prefix: &str, service: &ServiceName, id: &str) -> String {
    format!("{}/{service}/{id}", prefix.trim_end_matches('/'))
}
