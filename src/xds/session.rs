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

use lookaside_http2::Pieces;

use crate::settings::ServiceSettings;

use super::assignment::Assignment;
use super::resources::{self, Kind};
use super::responses::{self, Response};

/// The state of a stream. `W` is what the stream keeps for each wanted name of endpoints.
pub(super) struct Session<W> {
    listeners: Wanted<()>,
    clusters: Wanted<()>,
    endpoints: Wanted<W>,
    /// How long a change of weights alone waits for further changes.
    damping: Duration,
    /// When endpoints were last sent.
    pushed_at: Option<Instant>,
    /// The newest nonce of any type; 0 before the first response.
    nonce: u64,
}

/// What a client wants and has of one type.
struct Wanted<W> {
    /// Sorted by name.
    names: Vec<Name<W>>,
    /// The nonce of the newest response; 0 before the first.
    nonce: u64,
    /// Whether the client has not answered the newest response.
    unanswered: bool,
    /// How many names of the last request there was no room for.
    left_out: usize,
}

/// A name that a client wants.
pub(super) struct Name<W> {
    pub(super) name: Arc<str>,
    /// Returns the assignments of the name.
    pub(super) watch: W,
    /// The newest assignment, while it is not sent.
    next: Option<Arc<Assignment>>,
    /// What was sent.
    sent: Option<Sent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Sent {
    version: u64,
    members: u64,
}

/// A client's request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// Every name that it wants from now on.
    pub(super) names: Vec<String>,
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

/// What a request changes.
pub(super) struct Taken {
    pub(super) verdict: Verdict,
    /// Whether the client wants other names than before.
    pub(super) has_new_names: bool,
}

/// The next step of a stream.
pub(super) enum Step {
    Send(Push),
    /// There is something to send at this time.
    WaitUntil(Instant),
    /// The client has everything.
    Nothing,
}

/// A response to send.
pub(super) struct Push {
    pub(super) kind: Kind,
    pub(super) message: Pieces,
    pub(super) version: u64,
    /// The assignments in it.
    pub(super) assignments: Vec<(Arc<str>, Arc<Assignment>)>,
}

/// The most names of one type on a stream. A client's request must name them all, and
/// requests have at most 64 KiB.
pub(super) const NAMES_MAX: usize = 1_000;
/// Assignments of several names are sent together up to this many bytes, which are copied.
const TOGETHER_MAX: usize = 64 * 1024;

impl<W> Session<W> {
    /// Makes the state of a stream. A change of weights alone is sent at most once in
    /// `damping`.
    pub(super) fn new(damping: Duration) -> Self {
        Self {
            listeners: Wanted::new(),
            clusters: Wanted::new(),
            endpoints: Wanted::new(),
            damping,
            pushed_at: None,
            nonce: 0,
        }
    }

    /// Takes a request. `watch` is called for each new name of endpoints.
    pub(super) fn take(
        &mut self,
        request: Request,
        share: impl Fn(&str) -> Arc<str>,
        watch: impl FnMut(&Arc<str>) -> W,
    ) -> Taken {
        match request.kind {
            Kind::Listener => self.listeners.take(request, share, |_| ()),
            Kind::Cluster => self.clusters.take(request, share, |_| ()),
            Kind::Endpoints => self.endpoints.take(request, share, watch),
        }
    }

    /// Returns the names of endpoints that the client wants, if another response with
    /// endpoints can be sent now.
    pub(super) fn open_names(&mut self) -> &mut [Name<W>] {
        if self.endpoints.unanswered { &mut [] } else { &mut self.endpoints.names }
    }

    /// Returns how many names of the last requests there was no room for.
    pub(super) fn left_out(&self) -> usize {
        self.listeners.left_out + self.clusters.left_out + self.endpoints.left_out
    }

    /// Returns the names that the client wants endpoints of, or else listeners.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let listeners = self.listeners.names.iter().map(|one| one.name.clone());
        let endpoints = self.endpoints.names.iter().map(|one| one.name.clone());
        let endpoints: Vec<_> = endpoints.collect();
        if endpoints.is_empty() { listeners.collect() } else { endpoints }
    }

    /// Takes the settings of what a name of endpoints means. Listener and cluster are sent
    /// again if they differ by them.
    pub(super) fn settle(&mut self, name: &str, settings: &ServiceSettings) {
        for (kind, wanted) in
            [(Kind::Listener, &mut self.listeners), (Kind::Cluster, &mut self.clusters)]
        {
            let name = resources::name_of(kind, name);
            let found = wanted.names.binary_search_by(|one| (*one.name).cmp(&name));
            let Some(one) = found.ok().map(|at| &mut wanted.names[at]) else { continue };
            let version = resources::version(&resources::resource(kind, &name, settings));
            one.sent = one.sent.filter(|sent| sent.version == version);
        }
    }

    /// Returns the next response. `settings` returns why a name can mean no service, or the
    /// settings of what it means.
    pub(super) fn step(
        &mut self,
        now: Instant,
        settings: impl Fn(&str) -> Result<Arc<ServiceSettings>, String>,
    ) -> Step {
        let nonce = self.nonce + 1;
        let whole = |kind, wanted: &mut Wanted<()>| {
            let Response { message, version } = wanted.whole(kind, nonce, &settings)?;
            Some(Push { kind, message, version, assignments: Vec::new() })
        };
        let push = whole(Kind::Listener, &mut self.listeners)
            .or_else(|| whole(Kind::Cluster, &mut self.clusters));
        if let Some(push) = push {
            self.nonce = nonce;
            return Step::Send(push);
        }
        let again = self.pushed_at.map(|at| at + self.damping).filter(|&again| again > now);
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

impl<W> Name<W> {
    /// Offers the newest assignment. Returns whether the client does not have it.
    pub(super) fn offer(&mut self, assignment: Arc<Assignment>) -> bool {
        let is_new = self.sent.is_none_or(|sent| sent.version != assignment.version);
        self.next = is_new.then_some(assignment);
        is_new
    }

    /// Returns whether there is an assignment to send; while `damped`, whether it changes
    /// more than weights.
    fn is_due(&self, damped: bool) -> bool {
        let Some(next) = &self.next else { return false };
        !damped || self.sent.is_none_or(|sent| sent.members != next.members)
    }
}

impl<W> Wanted<W> {
    fn new() -> Self {
        Self { names: Vec::new(), nonce: 0, unanswered: false, left_out: 0 }
    }

    fn take(
        &mut self,
        request: Request,
        share: impl Fn(&str) -> Arc<str>,
        watch: impl FnMut(&Arc<str>) -> W,
    ) -> Taken {
        let newest = self.unanswered && request.nonce.parse() == Ok(self.nonce);
        let verdict = match request.error {
            _ if !newest => Verdict::None,
            Some(error) => Verdict::Refused(error),
            None => Verdict::Accepted,
        };
        self.unanswered &= !newest;
        let has_new_names = self.want(request.names, share, watch);
        Taken { verdict, has_new_names }
    }

    /// Sets the wanted names. Returns whether they are others than before.
    fn want(
        &mut self,
        mut names: Vec<String>,
        share: impl Fn(&str) -> Arc<str>,
        mut watch: impl FnMut(&Arc<str>) -> W,
    ) -> bool {
        // Most requests only answer a response.
        if names.len() == self.names.len()
            && names.iter().zip(&self.names).all(|(new, old)| **new == *old.name)
        {
            return false;
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !name.is_empty() && name != "*");
        self.left_out = names.len().saturating_sub(NAMES_MAX);
        names.truncate(NAMES_MAX);
        let mut old = std::mem::take(&mut self.names).into_iter().peekable();
        self.names.reserve_exact(names.len());
        for name in names {
            while old.next_if(|old| *old.name < *name).is_some() {}
            let kept = old.next_if(|old| *old.name == *name);
            self.names.push(kept.unwrap_or_else(|| {
                let name = share(&name);
                Name { watch: watch(&name), name, next: None, sent: None }
            }));
        }
        true
    }

    /// Returns the assignments to send, at least one.
    fn changed(&mut self, nonce: u64, damped: bool) -> Option<Push> {
        if self.unanswered {
            return None;
        }
        let mut assignments = Vec::new();
        let mut bytes = 0;
        for one in self.names.iter_mut().filter(|one| one.is_due(damped)) {
            let Some(next) = one.next.take() else { continue };
            let length = next.body.len() + one.name.len();
            if bytes > 0 && bytes + length > TOGETHER_MAX {
                one.next = Some(next);
                break;
            }
            bytes += length;
            one.sent = Some(Sent { version: next.version, members: next.members });
            assignments.push((one.name.clone(), next));
        }
        if assignments.is_empty() {
            return None;
        }
        let all: Vec<_> = assignments.iter().map(|(name, one)| (&**name, &**one)).collect();
        let Response { message, version } = responses::endpoints(&all, nonce);
        (self.nonce, self.unanswered) = (nonce, true);
        Some(Push { kind: Kind::Endpoints, message, version, assignments })
    }

    fn is_damped(&self) -> bool {
        !self.unanswered && self.names.iter().any(|one| one.next.is_some())
    }
}

impl Wanted<()> {
    /// Returns all resources, if the client lacks one.
    fn whole(
        &mut self,
        kind: Kind,
        nonce: u64,
        settings: impl Fn(&str) -> Result<Arc<ServiceSettings>, String>,
    ) -> Option<Response> {
        if self.unanswered || self.names.iter().all(|one| one.sent.is_some()) {
            return None;
        }
        let names = self.names.iter().map(|one| &*one.name);
        let (response, versions) = responses::whole(kind, names, nonce, settings);
        for (one, version) in self.names.iter_mut().zip(versions) {
            one.sent = Some(Sent { version, members: 0 });
        }
        (self.nonce, self.unanswered) = (nonce, true);
        Some(response)
    }
}

#[cfg(test)]
mod tests;
