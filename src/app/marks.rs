//! Connects the marks in etcd with the catalog.
//!
//! In: the zone, the wall clock, the saved marks, and the connection to etcd. Out: a future
//! that follows etcd and sends [`Input::Marks`] and [`Input::Release`], and a report of
//! every mark for the admin API.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::INPUTS;
use super::etcd_source::{self, FollowedKeys, Sink};
use crate::catalog::Input;
use crate::clock;
use crate::marks::report::Report;
use crate::marks::source::{self, News};
use crate::marks::{Mark, Timestamp, prefix};
use crate::model::Zone;
use crate::registry::Key;
use crate::registry::etcd::{Connect, Range};

/// Returns a future that follows the marks while it is polled, and the report of them.
/// `first_read` is cancelled once etcd has been read or denies reading.
pub fn follow(
    zone: &Zone,
    wall: fn() -> Timestamp,
    (saved, age): (Vec<Arc<Mark>>, Duration),
    connect: Option<Connect>,
    inputs: mpsc::Sender<Input>,
    first_read: CancellationToken,
) -> (impl Future<Output = ()> + use<>, watch::Receiver<Report>) {
    let key = |mark: Arc<Mark>| (Key::new(mark.key.in_etcd(zone).as_bytes()), mark);
    let saved = saved.into_iter().map(key).collect();
    let (ranges, decode) = (vec![Range::below(&prefix(zone))], source::decode(zone));
    let keys = FollowedKeys { connect, what: "marks", ranges, decode };
    let (events_tx, events_rx) = mpsc::channel(INPUTS);
    let (news_tx, news_rx) = mpsc::channel(INPUTS);
    let (report_tx, report_rx) = watch::channel(Report::default());
    let source = source::run(wall, (saved, age), events_rx, news_tx, report_tx);
    let input = |news| match news {
        News::FirstRead => None,
        News::InForce(marks) => Some(Input::Marks(marks)),
        News::Release { service, age } => Some(Input::Release(service, age)),
    };
    let sink = Sink { inputs, first_read };
    (etcd_source::run(keys, events_tx, source, news_rx, sink, input), report_rx)
}

/// Returns the time of the wall clock; 1970 if the clock is set before that.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(clock::wall().as_secs())
}
