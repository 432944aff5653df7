//! Feeds the catalog from a source that follows keys in etcd: settings or marks.
//!
//! In: the keys, and a source that turns their events into changes. Out: a future that
//! follows etcd (if any), runs the source, and sends the changes to the catalog as inputs.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::Input;
use crate::registry::Event;
use crate::registry::etcd::{self, Connect, Decode, FollowOptions, Range};

/// The keys that a source follows, and their decoder.
pub(super) struct FollowedKeys<T> {
    /// The connection to etcd. `None`: there is no etcd, so there are no events.
    pub(super) connect: Option<Connect>,
    /// The kind of content, in one word, for log lines.
    pub(super) what: &'static str,
    pub(super) ranges: Vec<Range>,
    pub(super) decode: Decode<T>,
}

/// The receivers of a source's news.
pub(super) struct Sink {
    /// The catalog's queue.
    pub(super) inputs: mpsc::Sender<Input>,
    /// Cancelled by the news that etcd has been read or denies reading.
    pub(super) first_read: CancellationToken,
}

/// Runs until the receiver of the inputs is dropped. `input` translates news into inputs;
/// it returns `None` for the news that cancels `first_read`.
pub(super) async fn run<T: Send + 'static, N>(
    keys: FollowedKeys<T>,
    events: mpsc::Sender<Event<T>>,
    source: impl Future<Output = ()>,
    mut news: mpsc::Receiver<N>,
    sink: Sink,
    input: impl Fn(N) -> Option<Input>,
) {
    let FollowedKeys { connect, what, ranges, decode } = keys;
    let etcd = async move {
        match connect {
            Some(connect) => {
                etcd::follow(FollowOptions { connect, what, ranges, decode }, events).await;
            }
            None => events.closed().await,
        }
    };
    let Sink { inputs, first_read } = sink;
    let forward = async move {
        while let Some(news) = news.recv().await {
            match input(news) {
                None => first_read.cancel(),
                Some(input) => {
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = etcd => {}
        () = source => {}
        () = forward => {}
    }
}
