//! What a stream of load reports (LRS) makes of its client's messages.
//!
//! In: the client's messages. Out: how often to report, when that is new for the client. A
//! report that cannot be read is counted and otherwise ignored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lookaside_http2::Pieces;
use prost::Message;

use crate::streams::body::Conversation;
use crate::streams::messages::SHORT_MAX;

use super::Shared;
use super::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use super::reports::Reports;
use super::resources::{Kind, name_of, time};
use super::responses::framed;

/// A stream whose client has sent its first message.
pub(crate) struct LoadStream {
    reports: Reports,
    client: SocketAddr,
    shared: Arc<Shared>,
    to_send: Option<Pieces>,
    /// The bytes of long reports since that was last charged. Each byte takes work.
    cost: usize,
}

impl LoadStream {
    /// Makes the stream of a client that reports at this interval.
    pub(super) fn new(client: SocketAddr, shared: Arc<Shared>, interval: Duration) -> Self {
        let mut stream =
            Self { reports: Reports::default(), client, shared, to_send: None, cost: 0 };
        stream.set_interval(interval);
        stream
    }

    fn set_interval(&mut self, interval: Duration) {
        let Some(interval) = self.reports.next_interval(interval) else { return };
        let response = LoadStatsResponse {
            load_reporting_interval: Some(time(interval)),
            send_all_clusters: true,
        };
        self.to_send = Some(framed(&response));
    }
}

impl Conversation for LoadStream {
    fn take_message(&mut self, message: Bytes) {
        self.cost += if message.len() > SHORT_MAX { message.len() } else { 0 };
        let counters = &self.shared.counters;
        let Ok(request) = LoadStatsRequest::decode(message) else {
            return counters.reports_rejected.increment();
        };
        let report = self.reports.take(request.cluster_stats);
        counters.reports_rejected.add(report.rejected);
        let mut interval: Option<Duration> = None;
        let mut backends = report.backends.into_iter().peekable();
        for (place, (cluster, calls)) in report.clusters.into_iter().enumerate() {
            let name = name_of(Kind::Endpoints, &cluster);
            let own = std::iter::from_fn(|| backends.next_if(|(of, ..)| *of == place));
            let own: Vec<_> = own.map(|(_, address, calls)| (address, calls)).collect();
            match self.shared.members.report(self.client, &name, calls, own) {
                Some(own) => {
                    counters.reports.increment();
                    interval = Some(interval.map_or(own, |least| least.min(own)));
                }
                None => counters.reports_rejected.increment(),
            }
        }
        if let Some(interval) = interval {
            self.set_interval(interval);
        }
    }

    fn cost(&mut self) -> usize {
        std::mem::take(&mut self.cost)
    }

    fn poll_push(&mut self, _: &mut Context<'_>) -> Poll<Option<Pieces>> {
        // A report, which wakes this stream, is all that brings more.
        self.to_send.take().map_or(Poll::Pending, |response| Poll::Ready(Some(response)))
    }
}

impl Drop for LoadStream {
    fn drop(&mut self) {
        for cluster in self.reports.busy() {
            self.shared.members.forget(self.client, &name_of(Kind::Endpoints, cluster));
        }
    }
}
