//! The JSON of `/api/v1/marks`, and of what sets and ends marks.

use serde::{Deserialize, Serialize};

use crate::marks;

/// `/api/v1/marks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// How many there are, whatever `limit` says.
    pub total: usize,
    /// Those that can be read, by kind and service.
    pub marks: Vec<Mark>,
    /// How many keys have a newest value that cannot be read, or are too many.
    pub refused_total: usize,
    /// Those; the key's former mark stays in force.
    pub refused: Vec<RefusedMark>,
    /// Why nothing can be heard of etcd now; marks stay in force meanwhile.
    pub unheard: Option<String>,
}

/// An operator's decision about backends, which every replica obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `drain` or `release`.
    pub kind: String,
    /// The service's canonical name; `*` for all services.
    pub service: String,
    /// The backends it is about: `IP:PORT`, an IP address, `KEY=VALUE` of their metadata,
    /// or the name of one; null where it is about the service.
    pub backends: Option<String>,
    /// Who set it, as far as that was said.
    pub by: String,
    /// Why, as far as that was said.
    pub why: String,
    /// When it was set: RFC 3339, in UTC.
    pub set: Option<String>,
    /// When it is over; null: when somebody ends it.
    pub until: Option<String>,
    /// `in force`, `over`, or `kept`: in force although etcd has lost it.
    #[serde(default)]
    pub state: String,
    /// How many backends it keeps out of lists now.
    #[serde(default)]
    pub keeps_out: usize,
}

/// A mark that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedMark {
    /// Its key in etcd.
    pub key: String,
    /// What is wrong, and the remedy.
    pub reason: String,
}

/// What is asked of `/api/v1/services/{name}/drain`, `undrain` and `release`. Each field
/// may be left out, but for `backends` of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Which backends, as in [`Mark`]; for `undrain`, none means all marks of the service.
    #[serde(default)]
    pub backends: Option<String>,
    /// How long, as in `30m`; none: until somebody ends it.
    #[serde(default, rename = "for")]
    pub lasts: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// Do it although no backend is meant, or none would be left.
    #[serde(default)]
    pub anyway: bool,
}

/// What a drain came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// The mark.
    pub mark: Mark,
    /// How many backends it is about now.
    pub matched: usize,
    /// How many backends of these services are left to take calls.
    pub left: usize,
    /// Whether this balancer obeys it already; if not, it will when it hears of it.
    pub obeyed: bool,
}

/// What an undrain came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndrainAnswer {
    /// The marks that were ended.
    pub ended: Vec<Mark>,
    /// Whether this balancer obeys already.
    pub obeyed: bool,
    /// Other marks that keep out backends which these no longer do.
    #[serde(default)]
    pub still: Vec<Mark>,
}

/// The answer to `/api/v1/services/{name}/release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The service.
    pub service: String,
    /// How many backends were held here.
    pub released: usize,
    /// Why the other replicas do not hear of it; null: they do.
    #[serde(default)]
    pub untold: Option<String>,
}

impl Mark {
    pub(in crate::admin) fn new(mark: &marks::Mark, state: &str, keeps_out: usize) -> Self {
        let marks::Mark { key, value } = mark;
        let marks::Value { by, why, set, until } = value.clone();
        Self {
            kind: key.kind().as_str().to_owned(),
            service: key.service().to_owned(),
            backends: key.backends().map(ToString::to_string),
            by,
            why,
            set: set.map(|set| set.to_string()),
            until: until.map(|until| until.to_string()),
            state: state.to_owned(),
            keeps_out,
        }
    }
}
