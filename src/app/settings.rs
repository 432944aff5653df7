//! Connects the sources of per-service settings with the catalog.
//!
//! In: the settings at the start, and how etcd is reached. Out: a future that follows the file
//! and etcd and sends [`Input::Settings`], and how the sources are.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::INPUTS;
use crate::catalog::Input;
use crate::model::Zone;
use crate::registry::etcd::{self, Connect, Decode, Following, Range, Stored};
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
    let ranges = vec![Range::key(&key)];
    let decode: Decode<Read> = Arc::new(|stored: Stored<'_>| source::decode(stored));
    let (events_tx, events_rx) = mpsc::channel(INPUTS);
    let etcd = async move {
        if let Some(connect) = connect {
            let following = Following { connect, what: "settings", ranges, decode };
            etcd::follow(following, events_tx).await;
        } else {
            events_tx.closed().await;
        }
    };
    // The newest alone counts: the catalog takes it in within microseconds.
    let (news_tx, mut news_rx) = mpsc::channel(1);
    let (report_tx, report_rx) = watch::channel(Report::default());
    let Begin { settings, file } = begin;
    let sources = source::run(settings, file, key, events_rx, news_tx, report_tx);
    let relay = async move {
        while let Some(news) = news_rx.recv().await {
            let News::Settings(settings) = news else {
                heard.cancel();
                continue;
            };
            if inputs.send(Input::Settings(settings)).await.is_err() {
                return;
            }
        }
    };
    let all = async {
        tokio::select! {
            () = etcd => {}
            () = sources => {}
            () = relay => {}
        }
    };
    (all, report_rx)
}
