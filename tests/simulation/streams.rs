//! The streams of a run, for the checker.
//!
//! In: a plan and its history. Out: each stream, with all that its client got. Pure.

use std::collections::BTreeMap;

use crate::faults::Faults;
use crate::history::{Record, Set, What};
use crate::plan::{Host, Plan};

/// A stream, from its beginning to its end.
pub struct Stream {
    pub id: usize,
    pub client: usize,
    pub service: usize,
    pub balancer: usize,
    /// When that balancer started.
    pub since: u64,
    /// When the process started whose state it has: an earlier one's, if that was saved.
    pub knows_since: u64,
    pub client_host: Host,
    pub opened: u64,
    pub greeted: Option<u64>,
    pub received: Vec<ReceivedList>,
    pub refused: Option<(u64, String)>,
    pub ended: Option<(u64, Option<String>)>,
}

#[derive(Clone)]
pub struct ReceivedList {
    pub at: u64,
    /// The earliest time at which it can have been sent.
    pub sent: u64,
    pub list: Set,
    /// The share of each backend of the list, in its order.
    pub shares: Vec<u32>,
    /// The part of the calls that the client drops, in hundredths of a percent.
    pub drops: u32,
    /// Whether it uses the addresses from DNS instead.
    pub fallback: bool,
}

/// The part of the calls that clients drop if they drop all of them.
pub const DROPS_ALL: u32 = 10_000;

/// Returns the streams of a run.
pub fn streams(plan: &Plan, records: &[Record], faults: &Faults) -> Vec<Stream> {
    let mut streams: BTreeMap<usize, Stream> = BTreeMap::new();
    const OPENED: &str = "a stream begins by being opened";
    let mut since = BTreeMap::new();
    for Record { at, what } in records {
        let at = *at;
        match what {
            What::Started(host) => drop(since.insert(*host, at)),
            What::ToldToFallBack { stream } => {
                let stream = streams.get_mut(stream).expect(OPENED);
                let sent = sent(stream, at, faults);
                let (list, shares) = (Set::new(), Vec::new());
                let told = ReceivedList { at, sent, list, shares, drops: 0, fallback: true };
                stream.received.push(told);
            }
            What::Opened { stream: id, client, balancer } => {
                let since = since.get(&Host::Balancer(*balancer)).copied().unwrap_or(0);
                let knows_since = if plan.policies.saves { 0 } else { since };
                let plan = &plan.clients[*client];
                let stream = Stream {
                    id: *id,
                    client: *client,
                    service: plan.service,
                    balancer: *balancer,
                    since,
                    knows_since,
                    client_host: Host::Clients(plan.client_host),
                    opened: at,
                    greeted: None,
                    received: Vec::new(),
                    refused: None,
                    ended: None,
                };
                streams.insert(*id, stream);
            }
            What::Greeted { stream } => {
                streams.get_mut(stream).expect(OPENED).greeted = Some(at);
            }
            What::ReceivedList { stream, list, shares, drops } => {
                let stream = streams.get_mut(stream).expect(OPENED);
                let sent = sent(stream, at, faults);
                let (list, shares, drops) = (list.clone(), shares.clone(), *drops);
                let received = ReceivedList { at, sent, list, shares, drops, fallback: false };
                stream.received.push(received);
            }
            What::Refused { stream, code } => {
                streams.get_mut(stream).expect(OPENED).refused = Some((at, code.clone()));
            }
            What::Ended { stream, status } => {
                streams.get_mut(stream).expect(OPENED).ended = Some((at, status.clone()));
            }
            _ => {}
        }
    }
    streams.into_values().collect()
}

/// Returns the earliest time at which a list can have been sent.
fn sent(stream: &Stream, at: u64, faults: &Faults) -> u64 {
    faults.sent(Host::Balancer(stream.balancer), stream.client_host, at).max(stream.opened)
}
