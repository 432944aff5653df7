//! The endpoints of a stream.
//!
//! In: what the client wants, and assignments. Out: responses, each with the names that have
//! a new assignment, and no others. Pure.

use std::sync::Arc;

use crate::xds::assignment::Assignment;
use crate::xds::name_set::NameSet;
use crate::xds::resources::Kind;
use crate::xds::responses::{self, Response};

use super::wanted::{Sent, Wanted};
use super::{Push, Request, Taken};

/// The state of the endpoints.
pub(super) struct Endpoints<W> {
    pub(super) wanted: Wanted<W>,
    /// The names with an assignment that is not sent.
    due: NameSet,
}

/// Assignments of several names are sent together up to this many bytes, which are copied.
const TOGETHER_MIN: usize = 64 * 1024;
/// The same for a client with many names. Each response makes it name them all again, so it
/// has four times as many bytes.
const TOGETHER_MAX: usize = 1024 * 1024;

impl<W: Default> Endpoints<W> {
    pub(super) fn new() -> Self {
        Self { wanted: Wanted::new(), due: NameSet::default() }
    }

    /// Takes a request: see [`Wanted::take`].
    pub(super) fn take(
        &mut self,
        request: Request,
        room: usize,
        share: impl Fn(&str) -> Arc<str>,
        added: impl FnMut(&Arc<str>),
    ) -> Taken {
        let taken = self.wanted.take(request, room, share, added);
        if taken.changed {
            let wanted = &self.wanted;
            self.due.retain(|name| wanted.find(name).is_some());
        }
        taken
    }

    /// Offers the newest assignment of a name. Returns whether the client does not have it.
    pub(super) fn offer(&mut self, name: &str, assignment: Arc<Assignment>) -> bool {
        let Some(one) = self.wanted.get(name) else { return false };
        let is_new = one.sent.is_none_or(|sent| !sent.is(assignment.version));
        one.next = is_new.then_some(assignment);
        if is_new {
            self.due.insert(one.name.clone());
        } else {
            self.due.remove(name);
        }
        is_new
    }

    /// Returns the assignments to send, at least one. While `damped`, changes of weights alone
    /// wait.
    pub(super) fn changed(&mut self, nonce: u64, damped: bool) -> Option<Push> {
        if self.wanted.unanswered || self.due.is_empty() {
            return None;
        }
        let together = (4 * self.wanted.cost()).clamp(TOGETHER_MIN, TOGETHER_MAX);
        let mut assignments = Vec::new();
        let mut bytes = 0;
        for name in self.due.iter() {
            let Some(one) = self.wanted.get(name) else { continue };
            let Some(next) = &one.next else { continue };
            if damped && one.sent.is_some_and(|sent| sent.members == next.members) {
                continue;
            }
            let length = next.body.len() + name.len();
            if bytes > 0 && bytes + length > together {
                break;
            }
            bytes += length;
            one.sent = Some(Sent::new(next.version, next.members));
            assignments.extend(one.next.take().map(|next| (name.clone(), next)));
        }
        if assignments.is_empty() {
            return None;
        }
        for (name, _) in &assignments {
            self.due.remove(name);
        }
        let all: Vec<_> = assignments.iter().map(|(name, one)| (&**name, &**one)).collect();
        let Response { pieces, version } = responses::endpoints(&all, nonce);
        self.wanted.sent(nonce);
        Some(Push { kind: Kind::Endpoints, pieces, version, nonce, assignments })
    }

    /// Returns whether a change waits.
    pub(super) fn is_damped(&self) -> bool {
        !self.wanted.unanswered && !self.due.is_empty()
    }
}
