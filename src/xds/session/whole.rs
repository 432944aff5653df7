//! The listeners or the clusters of a stream.
//!
//! In: what the client wants. Out: responses, each with all wanted resources, because clients
//! delete one that is missing. Pure. A response with many names is made in several steps, so
//! that other streams have their turns meanwhile.

use std::sync::Arc;

use crate::settings::ServiceSettings;
use crate::xds::resources::{self, Kind};
use crate::xds::responses::{Response, Whole};

use super::wanted::{Sent, Wanted};
use super::{Request, Taken};

/// The state of one of both types.
pub(super) struct Resources {
    kind: Kind,
    pub(super) wanted: Wanted<()>,
    /// Whether the client lacks a resource, or has a former one.
    lacking: bool,
    /// The response in the making, and how many names are in it. In a box, because there is
    /// mostly none.
    making: Option<Box<(Whole, usize)>>,
    /// How many resources of the newest response there was no room for.
    pub(super) omitted: usize,
}

/// How a response comes along.
pub(super) enum Made {
    /// There is nothing to send.
    Nothing,
    /// There are further names.
    Part,
    Whole(Response),
}

/// How many resources are made in one step: a fraction of a millisecond.
const STEP: usize = 64;

impl Resources {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, wanted: Wanted::new(), lacking: false, making: None, omitted: 0 }
    }

    /// Takes a request: see [`Wanted::take`]. A response in the making is begun anew if the
    /// names change.
    pub(super) fn take(
        &mut self,
        request: Request,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
    ) -> Taken {
        let taken = self.wanted.take(request, room, share, |_| ());
        if taken.changed {
            let any = !self.wanted.names.is_empty();
            let lacks = self.wanted.names.iter().any(|one| one.sent.is_none());
            self.lacking = lacks || any && self.making.is_some();
            self.making = None;
        }
        taken
    }

    /// Takes the settings of what a name of endpoints means. If its resource differs by them,
    /// all are sent again.
    pub(super) fn settle(&mut self, name: &str, settings: &ServiceSettings) {
        let name = resources::name_of(self.kind, name);
        let Some(at) = self.wanted.find(&name) else { return };
        // One that is not made yet is made by the newest settings.
        if self.making.as_ref().is_some_and(|making| making.1 <= at) {
            return;
        }
        let version = resources::version(&resources::resource(self.kind, &name, settings));
        let sent = &mut self.wanted.names[at].sent;
        if sent.is_some_and(|sent| !sent.is(version)) {
            (*sent, self.lacking) = (None, true);
        }
    }

    /// Makes the next part of a response with all resources, if the client lacks one.
    pub(super) fn make(
        &mut self,
        nonce: u64,
        settings: impl Fn(&str) -> Arc<ServiceSettings>,
    ) -> Made {
        if self.wanted.unanswered || !self.lacking && self.making.is_none() {
            return Made::Nothing;
        }
        let kind = self.kind;
        let (whole, next) = &mut **self.making.get_or_insert_with(|| {
            (self.lacking, self.omitted) = (false, 0);
            Box::new((Whole::new(kind), 0))
        });
        for _ in 0..STEP {
            let Some(one) = self.wanted.names.get_mut(*next) else {
                let Some(making) = self.making.take() else { break };
                self.wanted.sent(nonce);
                return Made::Whole(making.0.finish(nonce));
            };
            *next += 1;
            let version = whole.add(&one.name, &settings(&one.name));
            self.omitted += usize::from(version.is_none());
            one.sent = version.map(|version| Sent::new(version, 0));
        }
        Made::Part
    }
}
