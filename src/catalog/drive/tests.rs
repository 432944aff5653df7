//! Tests the catalog's task with inputs that never end.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc::Sender;
use tokio::task::{unconstrained, yield_now};

use super::*;
use crate::catalog::{Subscriber, Subscription};
use crate::model::{HostPort, ServiceName, Target, Weight, Zone};
use crate::registry::{Entry, Key, Registration};

/// Refills the channel as soon as there is room, so that the receiver always finds it
/// full.
struct Spring {
    next: Mutex<Option<Next>>,
    sent: Arc<AtomicUsize>,
}

/// Sends the next input, and is ready when that is done.
type Next = Pin<Box<dyn Future<Output = Option<Sender<Input>>> + Send>>;

/// The number of inputs. After the last the channel closes, so that a task that waits for
/// the end of the inputs gets there.
const ALL: usize = 50_000;
const CAPACITY: usize = 8;

impl Spring {
    fn start(sender: Sender<Input>, sent: Arc<AtomicUsize>) {
        let next = Mutex::new(Some(send(sender)));
        Arc::new(Self { next, sent }).wake();
    }
}

fn send(sender: Sender<Input>) -> Next {
    // Without `unconstrained` it would use up the budget of the task that receives.
    Box::pin(unconstrained(async {
        let room = sender.reserve_owned().await.ok()?;
        let word = Event::Apply { revision: 2, changes: Vec::new() };
        Some(room.send(Input::Registry(word)))
    }))
}

impl Wake for Spring {
    fn wake(self: Arc<Self>) {
        let mut next = self.next.lock().unwrap();
        let waker = Waker::from(self.clone());
        while let Some(sending) = next.as_mut() {
            let Poll::Ready(sender) = sending.as_mut().poll(&mut Context::from_waker(&waker))
            else {
                return;
            };
            let sent = 1 + self.sent.fetch_add(1, Ordering::Relaxed);
            *next = sender.filter(|_| sent < ALL).map(send);
        }
    }
}

/// Counts the wake-ups, and notes how many inputs had been sent at the last one.
#[derive(Default)]
struct Woken {
    times: AtomicUsize,
    sent: Arc<AtomicUsize>,
    sent_at_last: AtomicUsize,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.sent_at_last.store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn listen(subscription: &Subscription, waker: &Waker) -> Subscriber {
    let mut listener = subscription.listen();
    assert!(listener.poll_known(&mut Context::from_waker(waker)).is_ready());
    listener
}

fn entry() -> Entry {
    let registration = Registration {
        service: ServiceName::new("hello").unwrap(),
        id: "1".into(),
        address: HostPort::parse("10.0.0.1:1").unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    Entry { key: Key::new(b"hello/1"), decoded: Ok(vec![registration].into()), leased: true }
}

#[tokio::test(start_paused = true)]
async fn a_slice_is_woken_in_each_turn_though_inputs_never_end() {
    const LISTENERS: usize = 1_000;
    let catalog = Catalog::new();
    let target = Target::parse("hello", &Zone::new("zone").unwrap()).unwrap();
    let subscription = catalog.subscribe(&target).unwrap();
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(woken.clone());
    let _listeners: Vec<_> = (0..LISTENERS).map(|_| listen(&subscription, &waker)).collect();
    let (sender, inputs) = mpsc::channel(CAPACITY);
    let read = Event::Reset { revision: 1, all: vec![entry()], went_back: false };
    sender.try_send(Input::Registry(read)).unwrap();
    Spring::start(sender, woken.sent.clone());
    let driver = tokio::spawn(drive(inputs, catalog.clone(), crate::clock::wall));
    while woken.times.load(Ordering::Relaxed) < LISTENERS {
        assert!(!driver.is_finished(), "the inputs have ended, and not all are woken");
        yield_now().await;
    }
    driver.abort();
    let turns = woken.sent_at_last.load(Ordering::Relaxed).div_ceil(CAPACITY);
    let slices = LISTENERS.div_ceil(128);
    assert!(turns <= slices + 2, "{turns} turns for {slices} slices");
}
