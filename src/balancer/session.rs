//! The state of one stream: what to send its client next.
//!
//! In: what is known of the service, and the list for the client's class. Out:
//! [`Pieces`], or nothing if the client has them already. Pure: seed and nonce are
//! arguments. It never leaves a stream without a list, and never sends a list that a
//! client could take for one that it had before the stream began: C-core would then stay
//! in fallback, or send no reports.

use std::mem::discriminant;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use lookaside_http2::Pieces;

use crate::catalog::Known;
use crate::model::{ClientKind, ServiceName};
use crate::streams::held_bytes::WeakHeldBytes;
use crate::telemetry::Told;

use super::cycle::{StreamRank, Window};
use super::encode::{EncodedList, response};
use super::pb;
use crate::settings::WhenEmpty;

use pb::load_balance_response::LoadBalanceResponseType as Kind;

/// An instruction for a client.
#[derive(Debug, Clone)]
pub(super) enum Directive {
    /// Use this list.
    List(Arc<EncodedList>),
    /// There is no backend: fail calls that are not wait-for-ready.
    Empty,
    /// There is no backend: [`Self::Empty`] in a form that grpc-go understands.
    Unreachable,
    /// There is no backend: fail all calls.
    Drop,
    /// There is no backend: use the addresses from DNS.
    Fallback,
}

/// The state of a stream whose name is known.
#[derive(Debug)]
pub(super) struct Session {
    report_interval: Duration,
    /// Spreads the reports of clients that connected together.
    seed: u64,
    /// The nonce that makes its first list differ from any other.
    nonce: u32,
    last_sent: Option<LastSent>,
}

/// The last message that a client was sent. It holds no list, so that a client that stops
/// reading does not keep a list in memory.
#[derive(Debug)]
enum LastSent {
    List(Weak<EncodedList>),
    Other(Directive),
}

/// A message to send, and what it contains.
pub(super) struct Push {
    pub(super) message: Pieces,
    /// What it tells the client.
    pub(super) told: Told,
    pub(super) entries: u32,
    /// The part of the list that it has.
    pub(super) window: Window,
    /// The handle that shows whether the list's bytes are still held.
    pub(super) held: WeakHeldBytes,
}

/// Returns what a client of this kind must do, given the list for its class (`None` if no
/// backend can serve it).
///
/// An empty list makes C-core and Java fail calls that are not wait-for-ready, and keep
/// the others. grpc-go needs an address in every list: it takes an empty first
/// list for no list at all and lets every call hang, and with `pick_first` it does the
/// same for a first list of drop entries; after a later one, releases before 1.34 never
/// connect again. So for grpc-go an address that refuses every connection does what the
/// empty list does for the others. Drop entries would add nothing, because grpc-go reads
/// them only once it is connected.
pub(super) fn directive(
    list: Option<Arc<EncodedList>>,
    when_empty: WhenEmpty,
    kind: ClientKind,
) -> Directive {
    match (list, when_empty, kind) {
        (Some(list), ..) => Directive::List(list),
        (None, WhenEmpty::Wait | WhenEmpty::Drop, ClientKind::Go) => Directive::Unreachable,
        (None, WhenEmpty::Drop, _) => Directive::Drop,
        (None, WhenEmpty::Wait, _) => Directive::Empty,
        (None, WhenEmpty::Fallback, _) => Directive::Fallback,
    }
}

/// Returns the service that a name means, and the revision of its content.
pub(super) fn service_and_revision(known: &Known) -> Option<(&ServiceName, i64)> {
    match known {
        Known::Present(service) => Some((&service.name, service.revision)),
        Known::Absent(_) | Known::Syncing => None,
    }
}

impl Session {
    /// Makes the state of a stream whose client is to report at this interval (zero:
    /// never).
    pub(super) fn new(report_interval: Duration, seed: u64) -> Self {
        // The upper half of the seed; the lower half spreads the reports.
        let nonce = u32::try_from(seed >> 32).unwrap_or_default();
        Self { report_interval, seed, nonce, last_sent: None }
    }

    /// Returns what to send; `None` if the client has it already. `rank` decides which
    /// part of a list is the stream's.
    pub(super) fn next_push(&mut self, directive: Directive, rank: StreamRank) -> Option<Push> {
        if self.last_sent.as_ref().is_some_and(|sent| sent.is(&directive)) {
            return None;
        }
        let (held, window) = match &directive {
            Directive::List(list) => (list.held.clone(), list.window(rank)),
            _ => <(WeakHeldBytes, Window)>::default(),
        };
        let message = self.message(&directive, window);
        let (told, entries) = match &directive {
            Directive::List(_) => (Told::List, window.length),
            Directive::Empty => (Told::Empty, 0),
            Directive::Unreachable => (Told::Unreachable, 1),
            Directive::Drop => (Told::Drop, 1),
            Directive::Fallback => (Told::Fallback, 0),
        };
        self.last_sent = Some(match directive {
            Directive::List(list) => LastSent::List(Arc::downgrade(&list)),
            other => LastSent::Other(other),
        });
        Some(Push { message, told, entries, window, held })
    }

    /// Returns the message; `window` is the part of a list that it has.
    fn message(&mut self, directive: &Directive, window: Window) -> Pieces {
        let opening = match self.last_sent {
            None => initial_response(jittered(self.report_interval, self.seed)),
            Some(_) => Bytes::new(),
        };
        let list = match directive {
            Directive::List(list) => list,
            Directive::Empty => &EncodedList::empty(),
            Directive::Unreachable => &EncodedList::unreachable(),
            Directive::Drop => &EncodedList::drop_all(),
            Directive::Fallback => {
                let fallback = response(Kind::FallbackResponse(pb::FallbackResponse {}));
                return Pieces::from([opening, fallback, Bytes::new()]);
            }
        };
        let window = match directive {
            Directive::List(_) => window,
            _ => list.all(),
        };
        match &self.last_sent {
            // The first list of a stream, and the first after a fallback.
            None | Some(LastSent::Other(Directive::Fallback)) => {
                self.nonce = self.nonce.wrapping_add(1);
                list.unique_message(window, self.nonce, &opening)
            }
            Some(_) => list.message(window),
        }
    }
}

impl LastSent {
    /// Returns whether the client has this already. Two lists are equal only if they are
    /// one object, because equal lists are shared.
    fn is(&self, directive: &Directive) -> bool {
        match (self, directive) {
            (Self::List(sent), Directive::List(list)) => Arc::as_ptr(list) == sent.as_ptr(),
            (Self::List(_), _) => false,
            (Self::Other(sent), other) => discriminant(sent) == discriminant(other),
        }
    }
}

fn initial_response(report_interval: Duration) -> Bytes {
    let client_stats_report_interval =
        (!report_interval.is_zero()).then(|| prost_types::Duration {
            seconds: i64::try_from(report_interval.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(report_interval.subsec_nanos()).unwrap_or_default(),
        });
    response(Kind::InitialResponse(pb::InitialLoadBalanceResponse { client_stats_report_interval }))
}

/// Returns the interval, up to a tenth longer, so that clients that connected together do
/// not report together for ever. It is never shorter, because C-core has a minimum of a
/// second.
fn jittered(interval: Duration, seed: u64) -> Duration {
    let tenth = interval / 10;
    let part = u32::try_from(seed % 1_000).unwrap_or_default();
    interval + tenth / 1_000 * part
}

#[cfg(test)]
mod tests;
