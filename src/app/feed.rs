//! Feeds the catalog from a source that follows keys in etcd: settings, marks.
//!
//! In: the keys, and the source that makes news of their events. Out: a future that
//! follows etcd, if there is one, runs the source, and sends its news as inputs.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::Input;
use crate::registry::Event;
use crate::registry::etcd::{self, Connect, Decode, Following, Range};

/// Which keys a source follows, and what it makes of them.
pub(super) struct Keys<T> {
    /// How etcd is reached; none: there is no etcd, and nothing is heard.
    pub(super) connect: Option<Connect>,
    /// What the keys hold, in one word.
    pub(super) what: &'static str,
    pub(super) ranges: Vec<Range>,
    pub(super) decode: Decode<T>,
}

/// Where news go.
pub(super) struct Sink {
    /// To the catalog.
    pub(super) inputs: mpsc::Sender<Input>,
    /// Cancelled by the news that etcd has been read, or may not be.
    pub(super) heard: CancellationToken,
}

/// Runs until the receiver of the inputs is gone. `input` translates news for the catalog;
/// it returns nothing for the news that cancels `heard`.
pub(super) async fn run<T: Send + 'static, N>(
    keys: Keys<T>,
    events: mpsc::Sender<Event<T>>,
    source: impl Future<Output = ()>,
    mut news: mpsc::Receiver<N>,
    sink: Sink,
    input: impl Fn(N) -> Option<Input>,
) {
    let Keys { connect, what, ranges, decode } = keys;
    let etcd = async move {
        match connect {
            Some(connect) => {
                etcd::follow(Following { connect, what, ranges, decode }, events).await;
            }
            None => events.closed().await,
        }
    };
    let Sink { inputs, heard } = sink;
    let relay = async move {
        while let Some(news) = news.recv().await {
            match input(news) {
                None => heard.cancel(),
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
        () = relay => {}
    }
}
