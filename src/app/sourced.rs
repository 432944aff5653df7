//! What the sources in etcd beside the registrations share: settings and marks.
//!
//! In: what to follow, and what a source makes of it. Out: a future that follows etcd, if
//! there is one, and hands the source's news to the catalog.

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

/// Where a source's news go: to the catalog, but for the word that the source has been
/// heard, which cancels `heard`.
pub(super) struct Hearer {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) heard: CancellationToken,
}

/// Follows the keys, and runs the source, for as long as somebody receives. `input` says
/// what its news mean to the catalog; none: that it has been heard.
pub(super) async fn run<T: Send + 'static, N>(
    keys: Keys<T>,
    events: mpsc::Sender<Event<T>>,
    source: impl Future<Output = ()>,
    mut news: mpsc::Receiver<N>,
    hearer: Hearer,
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
    let Hearer { inputs, heard } = hearer;
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
