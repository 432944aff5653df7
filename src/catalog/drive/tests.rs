//! Tests the catalog's task with inputs that never end, and with inputs that come together.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc::Sender;
use tokio::task::{unconstrained, yield_now};

use super::*;
use crate::catalog::{HealthAnswer, Known, Subscriber, Subscription};
use crate::facts::demand::Demand;
use crate::model::{Class, HostPort, ServiceName, Target, Weight, Zone};
use crate::policy;
use crate::registry::{Entry, Key, Registration};
use crate::settings::Document;

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
    entry_in("a", 1)
}

/// Returns the entry of a backend of `hello` in a zone.
fn entry_in(zone: &str, n: u8) -> Entry {
    let registration = Registration {
        service: ServiceName::new("hello").unwrap(),
        id: n.to_string().into(),
        address: HostPort::parse(&format!("10.0.0.{n}:1")).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::new([("zone".to_owned(), zone.to_owned())].into()),
    };
    let key = Key::new(format!("hello/{n}").as_bytes());
    Entry { key, decoded: Ok(vec![registration].into()), leased: true }
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

/// All backends of a zone fail in one round of checks: clients get one list for it, in which
/// the other backends have equal parts of the calls.
#[tokio::test(start_paused = true)]
async fn a_zone_that_fails_one_round_of_checks_costs_one_list() {
    const DOCUMENT: &str = "[service.'*']\nzones.mode = 'prefer'\nhealth.kind = 'grpc'\n";
    let catalog = Catalog::new();
    let target = Target::parse("hello", &Zone::new("zone").unwrap()).unwrap();
    let subscription = catalog.subscribe(&target).unwrap();
    let (sender, inputs) = mpsc::channel(32);
    let driver = tokio::spawn(drive(inputs, catalog.clone(), crate::clock::wall));
    let say = |input| sender.try_send(input).expect("there is room");
    let document = Arc::new(Document::parse(DOCUMENT).unwrap());
    say(Input::Settings(Arc::new(catalog.settings().with(None, Some(document)))));
    let zones = [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b"), (7, "b"), (8, "b")];
    let all = zones.map(|(n, zone)| entry_in(zone, n)).to_vec();
    say(Input::Registry(Event::Reset { revision: 1, all, went_back: false }));
    // Returns the parts of the calls of the clients of zone `a`, by backend.
    let weights = || -> Vec<(u32, Weight)> {
        let Known::Present(service) = subscription.known() else { return Vec::new() };
        let decision = policy::decide(&service, &Class::default().in_zone(Some("a".into())));
        decision.picks().iter().map(|pick| (pick.endpoint, pick.weight)).collect()
    };
    let checked =
        || catalog.watch_health_targets().borrow().all.iter().cloned().collect::<Vec<_>>();
    turns_until(|| checked().len() == zones.len()).await;
    let demand = Demand { zones: [("a".into(), 3_000), ("b".into(), 5_000)].into(), unknown: 0 };
    say(Input::Demand(ServiceName::new("hello").unwrap(), Arc::new(demand)));
    turns_until(|| weights().len() == 3).await;
    let version = subscription.version();
    for target in checked() {
        if ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].contains(&&*target.addr.to_string()) {
            say(Input::HealthChecked(target, HealthAnswer::NotServing));
        }
    }
    turns_until(|| subscription.version() > version).await;
    // Further turns would publish what the first one left.
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(subscription.version(), version + 1);
    let weights = weights();
    assert_eq!(weights.iter().map(|one| one.0).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert!(weights.iter().all(|one| one.1 == weights[0].1), "{weights:?}");
    driver.abort();
}

/// Lets other tasks run until something is so.
async fn turns_until(mut so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if so() {
            return;
        }
        yield_now().await;
    }
    panic!("it is not so after 1,000 turns");
}
