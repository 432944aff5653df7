//! Passes the registry's events to the catalog.
//!
//! In: events, and whether settings and marks have been read. Out: inputs, in the same
//! order. The first reading waits at most `FIRST_READ_WITHIN` for settings and marks, so that
//! no list is sent that they forbid.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::Input;
use crate::registry::Event;

/// How long the registry's first reading waits for settings and marks. They come from the
/// same etcd, so this allows for a second attempt.
const FIRST_READ_WITHIN: Duration = Duration::from_secs(5);

/// Passes events on. Holds the first reading back until settings and marks have been read
/// or `FIRST_READ_WITHIN` is over.
pub async fn run(
    first_reads: [CancellationToken; 2],
    mut events: mpsc::Receiver<Event>,
    inputs: mpsc::Sender<Input>,
) {
    let mut first = true;
    while let Some(event) = events.recv().await {
        if matches!(event, Event::Reset { .. }) && std::mem::replace(&mut first, false) {
            let [settings, marks] = &first_reads;
            let all = async { tokio::join!(settings.cancelled(), marks.cancelled()) };
            if tokio::time::timeout(FIRST_READ_WITHIN, all).await.is_err() {
                tracing::warn!("settings or marks in etcd are not read yet: serving without them");
            }
        }
        if inputs.send(Input::Registry(event)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset() -> Event {
        Event::Reset { revision: 1, all: Vec::new(), went_back: false }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reading_waits_for_settings_and_marks_and_not_for_ever() {
        for read in 0..=2 {
            let first_reads = [CancellationToken::new(), CancellationToken::new()];
            first_reads.iter().take(read).for_each(CancellationToken::cancel);
            let (events_tx, events_rx) = mpsc::channel(4);
            let (inputs_tx, mut inputs) = mpsc::channel(4);
            let began = tokio::time::Instant::now();
            let gate = run(first_reads, events_rx, inputs_tx);
            let test = async {
                let since = crate::clock::now();
                let stale = Event::Stale { since, reason: String::new() };
                events_tx.send(stale).await.unwrap();
                inputs.recv().await.unwrap();
                assert_eq!(began.elapsed(), Duration::ZERO, "a stale event does not wait");
                events_tx.send(reset()).await.unwrap();
                events_tx.send(reset()).await.unwrap();
                drop(events_tx);
                inputs.recv().await.unwrap();
                let waited = began.elapsed();
                inputs.recv().await.unwrap();
                (waited, began.elapsed())
            };
            let ((), (first, second)) = tokio::join!(gate, test);
            let expected = if read < 2 { FIRST_READ_WITHIN } else { Duration::ZERO };
            assert!((expected..expected + Duration::from_millis(100)).contains(&first), "{read}");
            assert_eq!(first, second, "the second reading does not wait");
        }
    }
}
