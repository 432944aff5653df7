//! Connects the sources of per-service settings with the catalog.
//!
//! In: the settings at the start, and how etcd is reached. Out: a future that follows
//! the file and etcd and sends [`Input::Settings`], and how the sources are.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::INPUTS;
use super::feed::{self, Keys, Sink};
use crate::catalog::Input;
use crate::model::Zone;
use crate::registry::etcd::{Connect, Decode, Range, Stored};
use crate::settings::Settings;
use crate::settings::source::{self, FileSource, News, Read, Report};

/// What there is at the start.
pub struct Begin {
    /// The settings in force.
    pub settings: Settings,
    /// The file with tables.
    pub file: Option<FileSource>,
}

/// What follows the sources for as long as it is polled, and how they are. `heard` is
/// cancelled once etcd has been read, or may not be.
pub fn follow(
    begin: Begin,
    zone: &Zone,
    connect: Option<Connect>,
    inputs: mpsc::Sender<Input>,
    heard: CancellationToken,
) -> (impl Future<Output = ()> + use<>, watch::Receiver<Report>) {
    let key = source::key(zone);
    let decode: Decode<Read> = Arc::new(|stored: Stored<'_>| source::decode(stored));
    let keys = Keys { connect, what: "settings", ranges: vec![Range::key(&key)], decode };
    let (events_tx, events_rx) = mpsc::channel(INPUTS);
    // The newest alone counts: the catalog takes it in within microseconds.
    let (news_tx, news_rx) = mpsc::channel(1);
    let (report_tx, report_rx) = watch::channel(Report::default());
    let Begin { settings, file } = begin;
    let source = source::run(settings, file, key, events_rx, news_tx, report_tx);
    let input = |news| match news {
        News::Heard => None,
        News::Settings(settings) => Some(Input::Settings(settings)),
    };
    let sink = Sink { inputs, heard };
    (feed::run(keys, events_tx, source, news_rx, sink, input), report_rx)
}
