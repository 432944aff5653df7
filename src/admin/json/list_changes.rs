//! The JSON of the lists that a document of settings would change.

use serde::{Deserialize, Serialize};

/// How the lists of services would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ListChanges {
    /// How many services have settings, or zones, that would change.
    pub services: usize,
    /// How many of them have lists that would change.
    pub changed: usize,
    /// How many of them were not compared, because there are too many.
    pub not_compared: usize,
    /// Whether rules would change that say which keys may register which services. The
    /// backends that these rules add or leave out are not shown.
    pub registrants: bool,
    /// The first of the services, those with lists that would change first.
    pub first: Vec<ServiceLists>,
}

/// How the lists of one service would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceLists {
    /// The service.
    pub service: String,
    /// Open streams of clients of this service.
    pub clients: usize,
    /// How many of these streams would be denied the service.
    pub denied: usize,
    /// The lists that would change, one for each class of clients.
    pub lists: Vec<ListChange>,
    /// How many further classes of clients were not compared.
    pub more_classes: usize,
    /// What is unknown until the document is applied.
    pub unknown: Vec<String>,
}

/// How the list of one class of clients would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListChange {
    /// The class: what its clients' names select, their zone, their part of a split; `all` if
    /// there is none of that.
    pub class: String,
    /// Open streams of these clients.
    pub clients: usize,
    /// How many backends would join the list.
    pub joins: usize,
    /// How many backends would leave the list.
    pub leaves: usize,
    /// How many other backends would get another share.
    pub moves: usize,
    /// The first of all these backends, the largest change first.
    pub shares: Vec<ShareChange>,
    /// The part of their calls that clients drop, in percent; null if it stays the same.
    pub drops: Option<FromTo<u32>>,
    /// What clients see in place of a list; null if that stays the same.
    pub when_empty: Option<FromTo<Option<String>>>,
}

/// How the share of a backend would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareChange {
    /// The backend's address.
    pub backend: String,
    /// Its share of all calls, from 0 to 1; null: it is not listed.
    pub before: Option<f64>,
    /// The same after the change.
    pub after: Option<f64>,
}

/// A value before and after the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromTo<T> {
    /// The value now.
    pub before: T,
    /// The value that it would have.
    pub after: T,
}
