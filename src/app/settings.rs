//! Connects the sources of per-service settings with the catalog.
//!
//! In: the settings at the start, and the connection to etcd. Out: a future that follows
//! the file and etcd and sends [`Input::Settings`], and a report of the sources.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::INPUTS;
use super::etcd_source::{self, FollowedKeys, Sink};
use crate::catalog::Input;
use crate::model::Zone;
use crate::registry::etcd::{Connect, Decode, Range, Stored};
use crate::settings::Settings;
use crate::settings::source::{self, DecodedDocument, FileSource, News, Report};

/// The settings at the start.
pub struct InitialSettings {
    /// The settings in force.
    pub settings: Settings,
    /// The file with tables of services.
    pub file: Option<FileSource>,
    /// Whether clients show certificates.
    pub client_certificates: bool,
}

/// Returns a future that follows the sources while it is polled, and the report of them.
/// `first_read` is cancelled once etcd has been read or denies reading.
pub fn follow(
    initial: InitialSettings,
    zone: &Zone,
    connect: Option<Connect>,
    inputs: mpsc::Sender<Input>,
    first_read: CancellationToken,
) -> (impl Future<Output = ()> + use<>, watch::Receiver<Report>) {
    let key = source::key(zone);
    let decode: Decode<DecodedDocument> = Arc::new(|stored: Stored<'_>| source::decode(stored));
    let keys = FollowedKeys { connect, what: "settings", ranges: vec![Range::key(&key)], decode };
    let (events_tx, events_rx) = mpsc::channel(INPUTS);
    // Only the newest settings count, and the catalog takes them within microseconds.
    let (news_tx, news_rx) = mpsc::channel(1);
    let (report_tx, report_rx) = watch::channel(Report::default());
    let InitialSettings { settings, file, client_certificates } = initial;
    let source = source::run(settings, file, key, events_rx, news_tx, report_tx);
    let input = move |news| match news {
        News::FirstRead => None,
        News::Settings(settings) => {
            if let Some((place, rule)) = settings.rule_of_certificates()
                && !client_certificates
            {
                let remedy = "give --tls-client-ca, or name networks";
                tracing::warn!(
                    place,
                    rule,
                    remedy,
                    "a rule names certificates, and clients show none: it names nobody"
                );
            }
            Some(Input::Settings(settings))
        }
    };
    let sink = Sink { inputs, first_read };
    (etcd_source::run(keys, events_tx, source, news_rx, sink, input), report_rx)
}
