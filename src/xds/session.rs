//! The state of one stream: what its client wants and has, and what to send next.
//!
//! In: the client's requests, and assignments for the names that it wants. Out: responses.
//! Pure: the time is an argument. State is kept for each type and each name, and never
//! taken from a client's version: a client may carry a version from another stream, and
//! one that asks again for a name has forgotten it.
//!
//! | event | effect |
//! |---|---|
//! | a request | its names are the wanted ones, whatever its nonce; a new name is sent |
//! | its nonce is that of the newest response | that response is accepted or refused, once |
//! | a response is unanswered | no further response of its type; the newest content waits |
//! | a refusal | nothing is sent again until there is new content |
//! | other settings of a name of endpoints | listeners or clusters are sent again, if they differ |
//!
//! Every response with listeners or clusters has all wanted ones, because clients delete
//! one that is missing. It never deletes, and has no wildcard: a client without names wants
//! nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::assignment::Assignment;
use super::request::Names;
use super::resources::{Kind, Resource};
use super::responses::Response;

mod endpoints;
mod wanted;
mod whole;

use endpoints::Endpoints;
pub(super) use wanted::NAMES_MAX;
use whole::{Made, Resources};

/// The state of a stream. `W` is what the stream keeps for each wanted name of endpoints.
pub(super) struct Session<W> {
    listeners: Resources,
    clusters: Resources,
    endpoints: Endpoints<W>,
    /// When endpoints were last sent.
    pushed_at: Option<Instant>,
    /// The newest nonce of any type; 0 before the first response.
    nonce: u64,
}

/// A client's request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// Every name that it wants from now on.
    pub(super) names: Names,
    pub(super) nonce: String,
    /// The reason why it refuses the last response.
    pub(super) error: Option<String>,
}

/// What a request says of the newest response of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, or nothing new.
    None,
    Accepted,
    /// Refused, with the client's own words.
    Refused(String),
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) verdict: Verdict,
    /// Which names had to be compared with the former ones.
    pub(super) compared: Compared,
    /// Whether they differ.
    pub(super) changed: bool,
}

/// Which names of a request had to be compared with those of the request before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// None: they are the same.
    Nothing,
    /// Those at the end: the others are the same.
    Ends,
    All,
}

/// The next step of a stream.
pub(super) enum Step {
    Send(Push),
    /// There is more to do, once others have had their turn.
    Again,
    /// There is something to send at this time.
    WaitUntil(Instant),
    /// The client has everything.
    Nothing,
}

/// A response to send.
pub(super) struct Push {
    pub(super) kind: Kind,
    pub(super) pieces: [Bytes; 3],
    pub(super) version: u64,
    pub(super) nonce: u64,
    /// The assignments in it.
    pub(super) assignments: Vec<(Arc<str>, Arc<Assignment>)>,
}

impl<W: Default> Session<W> {
    /// Makes the state of a stream.
    pub(super) fn new() -> Self {
        Self {
            listeners: Resources::new(Kind::Listener),
            clusters: Resources::new(Kind::Cluster),
            endpoints: Endpoints::new(),
            pushed_at: None,
            nonce: 0,
        }
    }

    /// Takes a request. The names of all types may cost `room`, and `added` is called for each
    /// new name of endpoints.
    pub(super) fn take(
        &mut self,
        request: Request,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
        added: impl FnMut(&Arc<str>),
    ) -> Taken {
        let Self { listeners, clusters, endpoints, .. } = self;
        let room = |others: usize| room.saturating_sub(others);
        let [first, second, third] =
            [listeners.wanted.cost(), clusters.wanted.cost(), endpoints.wanted.cost()];
        match request.kind {
            Kind::Listener => listeners.take(request, room(second + third), share),
            Kind::Cluster => clusters.take(request, room(first + third), share),
            Kind::Endpoints => endpoints.take(request, room(first + second), share, added),
        }
    }

    /// Returns how many names of endpoints the client wants.
    pub(super) fn names_of_endpoints(&self) -> usize {
        self.endpoints.wanted.names.len()
    }

    /// Returns whether another response with endpoints can be sent now.
    pub(super) fn is_open(&self) -> bool {
        !self.endpoints.wanted.unanswered
    }

    /// Returns whether the client wants endpoints of a name.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.endpoints.wanted.find(name).is_some()
    }

    /// Returns what the stream keeps for a name of endpoints.
    pub(super) fn watch(&mut self, name: &str) -> Option<&mut W> {
        self.endpoints.wanted.get(name).map(|one| &mut one.watch)
    }

    /// Offers the newest assignment of a name. Returns whether the client does not have it.
    pub(super) fn offer(&mut self, name: &str, assignment: Arc<Assignment>) -> bool {
        self.endpoints.offer(name, assignment)
    }

    /// Returns how many names of the last requests, and resources of the last responses,
    /// there was no room for.
    pub(super) fn left_out(&self) -> usize {
        let whole = |of: &Resources| of.wanted.left_out() + of.omitted;
        whole(&self.listeners) + whole(&self.clusters) + self.endpoints.wanted.left_out()
    }

    /// Returns what the names of all types cost.
    pub(super) fn cost(&self) -> usize {
        self.listeners.wanted.cost() + self.clusters.wanted.cost() + self.endpoints.wanted.cost()
    }

    /// Returns the names that the client wants endpoints of, or else listeners.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let listeners = self.listeners.wanted.names.iter().map(|one| one.name.clone());
        let endpoints = self.endpoints.wanted.names.iter().map(|one| one.name.clone());
        let endpoints: Vec<_> = endpoints.collect();
        if endpoints.is_empty() { listeners.collect() } else { endpoints }
    }

    /// Takes it that the settings of a name of endpoints are new. Listener and cluster are sent
    /// again if they differ by them.
    pub(super) fn settle(&mut self, name: &str, resource: impl Fn(Kind, &str) -> Resource) {
        self.listeners.settle(name, &resource);
        self.clusters.settle(name, &resource);
    }

    /// Returns the next response. A change of weights alone is sent at most once in `damping`.
    /// `resource` returns the listener or the cluster of a name.
    pub(super) fn step(
        &mut self,
        now: Instant,
        damping: Duration,
        resource: impl Fn(Kind, &str) -> Resource,
    ) -> Step {
        let nonce = self.nonce + 1;
        for (kind, whole) in
            [(Kind::Listener, &mut self.listeners), (Kind::Cluster, &mut self.clusters)]
        {
            match whole.make(nonce, &resource) {
                Made::Nothing => {}
                Made::Part => return Step::Again,
                Made::Whole(Response { pieces, version }) => {
                    self.nonce = nonce;
                    return Step::Send(Push {
                        kind,
                        pieces,
                        version,
                        nonce,
                        assignments: Vec::new(),
                    });
                }
            }
        }
        let again = self.pushed_at.map(|at| at + damping).filter(|&again| again > now);
        match (self.endpoints.changed(nonce, again.is_some()), again) {
            (Some(push), _) => {
                self.nonce = nonce;
                self.pushed_at = Some(now);
                Step::Send(push)
            }
            (None, Some(again)) if self.endpoints.is_damped() => Step::WaitUntil(again),
            (None, _) => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
