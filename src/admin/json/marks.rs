//! The JSON of `/api/v1/marks`, and of the requests that set and end marks.

use serde::{Deserialize, Serialize};

use crate::marks;

/// `/api/v1/marks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// How many marks there are, whatever `limit` says.
    pub total: usize,
    /// The marks, by kind and service.
    pub marks: Vec<Mark>,
    /// How many keys have a newest value that cannot be read, or exceed the limit.
    pub refused_total: usize,
    /// The keys that cannot be read. Each key's former mark stays in force.
    pub refused: Vec<RefusedMark>,
    /// Why etcd cannot be read now. Marks stay in force meanwhile.
    pub unheard: Option<String>,
}

/// An operator's decision about backends or clients, which every replica obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `drain`, `release`, `shed` or `fallback`.
    pub kind: String,
    /// The service's canonical name; `*` for all services.
    pub service: String,
    /// The backends it is about: `IP:PORT`, an IP address, `KEY=VALUE` of their metadata,
    /// or a backend's name; null if it is about the whole service.
    pub backends: Option<String>,
    /// The clients it is about, by what their name selects: `KEY=VALUE`; null: all.
    #[serde(default)]
    pub clients: Option<String>,
    /// The part of their calls that clients drop, in percent, if it is a `shed`.
    #[serde(default)]
    pub percent: Option<u32>,
    /// The operator who set it, as given.
    pub by: String,
    /// The reason, as given.
    pub why: String,
    /// When it was set: RFC 3339, in UTC.
    pub set: Option<String>,
    /// When it ends; null: when an operator ends it.
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
    /// The error and its remedy.
    pub reason: String,
}

/// The body of `/api/v1/services/{name}/drain`, `undrain`, `release`, `shed`, `unshed`,
/// `fallback` and `unfallback`. All fields are optional, except `backends` of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The backends, as in [`Mark`]. For `undrain`, none means all marks of the service.
    #[serde(default)]
    pub backends: Option<String>,
    /// The clients that a shed is about, as in [`Mark`].
    #[serde(default)]
    pub clients: Option<String>,
    /// The part of the calls that a shed is about, in percent; none: all.
    #[serde(default)]
    pub percent: Option<u32>,
    /// How long the mark lasts, as in `30m`; none: until an operator ends it.
    #[serde(default, rename = "for")]
    pub lasts: Option<String>,
    /// The operator.
    #[serde(default)]
    pub by: String,
    /// The reason.
    #[serde(default)]
    pub why: String,
    /// Proceed although no backend matches, or none would be left.
    #[serde(default)]
    pub anyway: bool,
}

/// The result of a drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// The mark.
    pub mark: Mark,
    /// How many backends match it now.
    pub matched: usize,
    /// How many backends of these services are left to take calls.
    pub left: usize,
    /// Whether this balancer follows it already. If not, it will once it reads the mark.
    pub obeyed: bool,
}

/// The result of an undrain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndrainAnswer {
    /// The marks that were ended.
    pub ended: Vec<Mark>,
    /// Whether this balancer follows it already.
    pub obeyed: bool,
    /// Other marks that still keep out the backends of the ended marks.
    #[serde(default)]
    pub still: Vec<Mark>,
}

/// The result of a shed or a fallback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientMarkAnswer {
    /// The mark.
    pub mark: Mark,
    /// How many streams ask for these services now, at this balancer.
    pub streams: usize,
    /// Whether this balancer follows it already. If not, it will once it reads the mark.
    pub obeyed: bool,
}

/// The answer to `/api/v1/services/{name}/release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The service.
    pub service: String,
    /// How many backends were held here.
    pub released: usize,
    /// Why the other replicas do not learn of the release; null: they do.
    #[serde(default)]
    pub untold: Option<String>,
}

impl Mark {
    pub(in crate::admin) fn new(mark: &marks::Mark, state: &str, keeps_out: usize) -> Self {
        let marks::Mark { key, value } = mark;
        let marks::Value { by, why, set, until, .. } = value.clone();
        Self {
            kind: key.kind().as_str().to_owned(),
            service: key.service().to_owned(),
            backends: key.backends().map(ToString::to_string),
            clients: key.clients().map(|one| format!("{}={}", one.key, one.value)),
            percent: (key.kind() == marks::Kind::Shed).then(|| value.percent()),
            by,
            why,
            set: set.map(|set| set.to_string()),
            until: until.map(|until| until.to_string()),
            state: state.to_owned(),
            keeps_out,
        }
    }
}
