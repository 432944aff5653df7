//! What one stream was sent last, as it is shown to operators.
//!
//! In: the number of a stream. Out: values without the types of a protocol. Streams share the
//! bytes of what they are sent, so this is read from those bytes when somebody asks.

use std::net::SocketAddr;
use std::sync::Arc;

/// Returns what the stream with this number was sent; `None` if it is not open. Of a stream
/// with many names, only the wanted ones are shown.
pub type FindSent<T> = Arc<dyn Fn(u64, &WantedNames) -> Option<T> + Send + Sync>;

/// Which names of a stream are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedNames {
    /// How many at most; `None`: all.
    pub limit: Option<usize>,
    /// Only this one, as the client asked for it.
    pub name: Option<String>,
}

/// What a client was told by the newest response, of either protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet.
    Nothing,
    /// Its backends.
    List,
    /// That there are none: its calls wait.
    Empty,
    /// The same, as a backend that refuses every connection.
    Unreachable,
    /// To drop all calls, because there are no backends.
    Drop,
    /// To drop all calls, because it may not ask for the name.
    Denied,
    /// To drop all calls, because no service can have the name.
    Invalid,
    /// To use the addresses from DNS.
    Fallback,
}

impl Told {
    /// Returns the word for it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::List => "list",
            Self::Empty => "empty",
            Self::Unreachable => "unreachable",
            Self::Drop => "drop",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Fallback => "fallback",
        }
    }
}

/// The list that a BalanceLoad stream was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentList {
    /// The entries in order; `None` if they are no longer in memory, because a newer list is
    /// on its way.
    pub entries: Option<Vec<SentEntry>>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEntry {
    /// The backend; `None`: the client drops the call.
    pub backend: Option<SocketAddr>,
    /// The `lb-token`, without the nonce of a stream's first entry.
    pub token: String,
}

/// The resources that an xDS stream was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentResources {
    /// The newest response of each type, in the order in which clients ask.
    pub types: Vec<SentType>,
    /// How many names the stream has.
    pub total: usize,
    /// The resources of each wanted name, sorted by name.
    pub names: Vec<SentName>,
}

/// The newest response of one type of resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentType {
    /// `listener`, `cluster` or `endpoints`.
    pub kind: &'static str,
    /// Its version; `None` before the first.
    pub version: Option<u64>,
    /// Its nonce; 0 before the first.
    pub nonce: u64,
    /// The version of the newest response that the client accepted.
    pub accepted: Option<u64>,
    /// `nothing`, `unanswered`, `accepted` or `refused`.
    pub state: &'static str,
    /// The client's own words about a response that it refused, until it accepts one.
    pub refusal: Option<Arc<str>>,
}

/// The resources of one name. A resource that was not sent is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentName {
    /// The name that the client asked for.
    pub name: Arc<str>,
    /// How calls find a cluster.
    pub listener: Option<SentResource>,
    /// How the client balances.
    pub cluster: Option<SentResource>,
    /// The backends.
    pub endpoints: Option<SentEndpoints>,
}

/// A listener or a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentResource {
    /// The name of the resource.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Whether this is certainly what was sent. It is not while a newer one is on its way.
    pub as_sent: bool,
    /// What it says, each part with its name.
    pub says: Vec<(&'static str, String)>,
}

/// The backends of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEndpoints {
    /// The name of the resource.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What they tell the client.
    pub told: Told,
    /// The part of the calls that the client drops in each category, in percent.
    pub drops: Vec<(String, u32)>,
    /// The localities in order; `None` if they are no longer in memory, because newer ones are
    /// on their way.
    pub localities: Option<Vec<SentLocality>>,
}

/// The backends that share a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentLocality {
    /// Its name.
    pub name: String,
    /// Its weight among the localities.
    pub weight: u32,
    /// Its backends.
    pub backends: Vec<SocketAddr>,
}
