//! Tests listeners on several threads beside a publisher that wakes them.

use std::future::poll_fn;

use super::*;

const LISTENERS: usize = 600;
const VALUES: u16 = 400;

/// Reads values until the last one, as a listener does. Every so often another listener
/// takes its place.
async fn listen(topic: Arc<Topic<Parts>>, number: usize) {
    let mut listener = Listener::new(topic.clone());
    for read in number.. {
        let news = poll_fn(|cx| listener.poll_newest(cx)).await;
        let Some((_, parts)) = news else { continue };
        if parts.last() == Some(&VALUES) {
            return;
        }
        if read.is_multiple_of(7) {
            listener = Listener::new(topic.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everyone_gets_the_last_value() {
    let topic = Topic::new(Arc::default(), Parts::new());
    let spawn = |number| tokio::spawn(listen(topic.clone(), number));
    let mut tasks: Vec<_> = (0..LISTENERS).map(spawn).collect();
    let mut rounds = Rounds { slice: 16, ..Rounds::default() };
    for value in 1..=VALUES {
        publish(&topic, &[value], &mut rounds);
        for _ in 0..value % 5 {
            rounds.turn().await;
        }
        if value % 20 == 0 {
            tasks.push(tokio::spawn(listen(topic.clone(), usize::from(value))));
        }
    }
    while rounds.wake_slice() {}
    for task in tasks {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
        ended.expect("it is woken for the last value").expect("it does not panic");
    }
}
