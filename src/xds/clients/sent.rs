//! What a stream was sent last, as operators see it.
//!
//! In: a stream's row, and what its names mean now. Out: [`SentResources`]. Assignments are read
//! from the bytes that streams share. Listeners and clusters are kept nowhere, so they are made
//! again: they are what was sent if the version of the response comes out.

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;

use crate::policy::hash;
use crate::settings::WhenEmpty;
use crate::telemetry::{
    SentEndpoints, SentName, SentResource, SentResources, SentType, Told, WantedNames,
};
use crate::xds::assignment::Assignment;
use crate::xds::resources::{self, Kind, name_of};
use crate::xds::shown;
use crate::xds::watches::Watches;

use super::{NameRow, Now, Row, Sent};

/// The versions of a stream with more names are not computed again.
const COMPARED_MAX: usize = 1_000;

/// A name, and the bytes that were sent for it.
struct Held {
    name: Arc<str>,
    told: Told,
    version: u64,
    /// `None` if they are no longer in memory.
    body: Option<Bytes>,
}

impl Row {
    pub(super) fn sent(&self, wanted: &WantedNames, watches: &Watches) -> SentResources {
        let (all, held, sent) = {
            let now = self.lock();
            let all: Vec<_> = now.names.iter().map(|row| row.name.clone()).collect();
            (all, self.held(&now, wanted, watches), now.sent.clone())
        };
        // Nothing is locked any more, because making resources takes time.
        let client = self.peer.kind;
        let make = |kind: Kind, name: &str| {
            let settings = watches.settings(name, client);
            let name = name_of(kind, name);
            let made = resources::resource(kind, &name, &settings);
            (name.into_owned(), made)
        };
        let version =
            |kind, sum, name: &Arc<str>| hash::pair(sum, resources::version(&make(kind, name).1));
        let is_as_sent = |kind: Kind| {
            let newest = sent[kind as usize].newest();
            let few = all.len() <= COMPARED_MAX;
            few && newest == Some(all.iter().fold(0, |sum, name| version(kind, sum, name)))
        };
        let as_sent = [Kind::Listener, Kind::Cluster].map(is_as_sent);
        let resource = |kind: Kind, name: &str| {
            sent[kind as usize].newest()?;
            let (name, made) = make(kind, name);
            let (version, says) = (resources::version(&made), shown::resource(kind, &made));
            Some(SentResource { name, version, as_sent: as_sent[kind as usize], says })
        };
        let names = held.into_iter().map(|held| SentName {
            listener: resource(Kind::Listener, &held.name),
            cluster: resource(Kind::Cluster, &held.name),
            name: held.name.clone(),
            endpoints: held.endpoints(),
        });
        SentResources {
            types: Kind::ALL.map(|kind| sent[kind as usize].shown(kind)).into(),
            total: all.len(),
            names: names.collect(),
        }
    }

    fn held(&self, now: &Now, wanted: &WantedNames, watches: &Watches) -> Vec<Held> {
        let is_wanted =
            |row: &&NameRow| wanted.name.as_ref().is_none_or(|name| **name == *row.name);
        let rows = now.names.iter().filter(is_wanted).take(wanted.limit.unwrap_or(usize::MAX));
        let client = self.peer.kind;
        let fixed = |when_empty| Some(Assignment::without_backends(when_empty, client).body);
        let held = |row: &NameRow| Held {
            name: row.name.clone(),
            told: row.told,
            version: row.version,
            body: match row.told {
                Told::List => row.held.upgrade().map(|held| held.bytes.clone()),
                Told::Drop | Told::Denied => fixed(WhenEmpty::Drop),
                Told::Invalid => watches.invalid(&row.name, client).map(|one| one.body),
                Told::Unreachable => fixed(WhenEmpty::Wait),
                _ => Some(Bytes::new()),
            },
        };
        rows.map(held).collect()
    }
}

impl Held {
    /// Returns the assignment; `None` if none was sent.
    fn endpoints(&self) -> Option<SentEndpoints> {
        if self.told == Told::Nothing {
            return None;
        }
        let read = self.body.as_deref().map(shown::assignment);
        let (localities, drops) = read.unzip();
        Some(SentEndpoints {
            name: name_of(Kind::Endpoints, &self.name).into_owned(),
            version: self.version,
            told: self.told,
            drops: drops.unwrap_or_default(),
            localities,
        })
    }
}

impl Sent {
    fn shown(&self, kind: Kind) -> SentType {
        let state = match self {
            Self { nonce: 0, .. } => "nothing",
            Self { unanswered: true, .. } => "unanswered",
            Self { refusal: Some(_), .. } => "refused",
            _ => "accepted",
        };
        SentType {
            kind: kind.as_str(),
            version: self.newest(),
            nonce: self.nonce,
            accepted: self.accepted.map(NonZeroU64::get),
            state,
            refusal: self.refusal.clone(),
        }
    }
}
