//! A crowd: thousands of clients of grpclb and xDS in one thread, each with its own
//! connection and stream. They reconnect like gRPC's clients.
//!
//! In: addresses of balancers or DNS servers that name them, and the names that the clients
//! ask for. Out: the [`History`] of all lists. The clients share no list and decode each one.

mod client;
mod history;
pub mod xds;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{dns, raise_open_files};
use client::{Came, Client};
pub use history::{Content, History, Lost, Received, Set, Wait};

/// Running clients. They end when this value is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Like grpc-go.
    Usual,
    /// Never reopens its windows, but answers everything else.
    Shut,
    /// Stops reading once it has a list.
    Deaf,
}

/// The setup of a crowd.
#[derive(Clone)]
pub struct Plan {
    /// The addresses of balancers, in the order in which clients try them.
    pub balancers: Vec<SocketAddr>,
    /// Whether every second client of each name speaks xDS instead of grpclb.
    pub mixed: bool,
    /// The number of clients that start per second, so that they do not disturb each other.
    pub pace: usize,
    /// The time between two reports of a client of grpclb; `None`: no reports.
    pub report: Option<Duration>,
    /// The clients' network, if it is not the test's: its file in `/run/netns`.
    pub network: Option<String>,
    /// Where clients ask for the balancers, instead of `balancers`.
    pub dns: Option<Dns>,
}

/// Servers that name balancers.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Clients ask the first that answers.
    pub servers: Vec<SocketAddr>,
    /// The name of the SRV records.
    pub name: String,
}

struct Shared {
    epoll: OwnedFd,
    ended: AtomicBool,
    /// The number of threads that wait for the lock; the clients' thread lets them go first.
    wanted: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    plan: Plan,
    clients: Vec<Client>,
    /// The number of clients of each name.
    of_name: HashMap<String, usize>,
    history: History,
    /// The clients that try again later, by time.
    later: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The clients that ask DNS again, by time.
    questions: BinaryHeap<Reverse<(Instant, usize)>>,
    random: u64,
    reported: Instant,
    renewed: usize,
}

/// gRPC's connection backoff: the first delay, its growth, its jitter.
const BACKOFF: Duration = Duration::from_secs(1);
const GROWTH: f64 = 1.6;
const JITTER: f64 = 0.2;
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// The time without a list after which a client uses the fallback addresses from DNS.
pub const FALLBACK: Duration = Duration::from_secs(10);
/// The least time between two questions of a client, as in grpc-go and C-core.
const DNS_FLOOR: Duration = Duration::from_secs(30);
/// The receive buffer of a client that stops reading, in bytes.
const DEAF_ROOM: usize = 4096;
const TURN: Duration = Duration::from_millis(20);

impl Plan {
    pub fn to(balancer: SocketAddr) -> Self {
        let (report, network, dns) = (None, None, None);
        Self { balancers: vec![balancer], mixed: false, pace: 5_000, report, network, dns }
    }

    /// The clients of each name speak grpclb and xDS in turn.
    pub fn mixed(balancer: SocketAddr) -> Self {
        Self { mixed: true, ..Self::to(balancer) }
    }
}

impl Crowd {
    pub fn new(plan: Plan) -> Self {
        raise_open_files();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let state = State {
            plan,
            clients: Vec::new(),
            of_name: HashMap::new(),
            history: History::default(),
            later: BinaryHeap::new(),
            questions: BinaryHeap::new(),
            random: 0x5eed,
            reported: Instant::now(),
            renewed: 0,
        };
        let (ended, wanted) = (AtomicBool::new(false), AtomicUsize::new(0));
        let shared = Arc::new(Shared { epoll, ended, wanted, state: Mutex::new(state) });
        let own = shared.clone();
        let thread = Some(std::thread::spawn(move || run(&own)));
        Self { shared, thread }
    }

    /// Adds a client for each name. They start one after the other.
    pub fn add(&self, names: impl IntoIterator<Item = String>, manner: Manner) {
        self.with(|state| {
            let pause = Duration::from_secs(1) / u32::try_from(state.plan.pace).expect("a pace");
            for (turn, name) in (0_u32..).zip(names) {
                state.later.push(Reverse((Instant::now() + pause * turn, state.clients.len())));
                let before = state.of_name.entry(name.clone()).or_default();
                let speaks_xds = state.plan.mixed && *before % 2 == 1;
                *before += 1;
                state.clients.push(Client::new(name, manner, speaks_xds));
            }
        });
    }

    /// Makes the next `count` clients close their connections and start again.
    pub fn renew(&self, count: usize) {
        self.with(|state| {
            for _ in 0..count.min(state.clients.len()) {
                let index = state.renewed % state.clients.len();
                state.renewed += 1;
                let client = &mut state.clients[index];
                if std::mem::take(&mut client.has_list) {
                    client.socket = None;
                    client.since = Instant::now();
                    // A new client of xDS has nothing yet.
                    client.xds = client.xds.as_ref().map(|_| Box::default());
                    state.later.push(Reverse((client.since, index)));
                }
            }
        });
    }

    /// Makes all current clients close their connections for good.
    pub fn leave(&self) {
        self.with(|state| {
            for client in &mut state.clients {
                (client.gone, client.has_list, client.socket) = (true, false, None);
            }
            state.later.clear();
        });
    }

    /// Calls `look` with the history so far.
    pub fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        self.with(|state| look(&state.history))
    }

    /// Returns the number of clients that have a stream with a list.
    pub fn listed(&self) -> usize {
        self.with(|state| state.clients.iter().filter(|client| client.has_list).count())
    }

    /// Returns the number of clients of xDS that have asked, and were not answered.
    pub fn waiting_for_xds(&self) -> usize {
        let waits = |client: &&Client| client.xds.is_some() && client.is_unanswered();
        self.with(|state| state.clients.iter().filter(waits).count())
    }

    /// Returns the name that each client asked for, and whether it has a stream with a list.
    pub fn names(&self) -> Vec<(String, bool)> {
        self.with(|state| {
            state.clients.iter().map(|client| (client.name.clone(), client.has_list)).collect()
        })
    }

    /// Returns whether every client that has not left has a stream with a list, and `right`
    /// accepts its last list. `right` is called once for each name and list.
    pub fn all_received(&self, right: impl Fn(&str, &Set) -> bool) -> bool {
        let nothing = Set::new();
        self.with(|state| {
            let mut known = HashMap::new();
            state.clients.iter().filter(|client| !client.gone).all(|client| {
                let (Some(what), true) = (client.received, client.has_list) else { return false };
                let set = match what {
                    Content::Servers(index) => &state.history.sets[index as usize],
                    Content::Nothing | Content::Fallback => &nothing,
                };
                *known.entry((&client.name, what)).or_insert_with(|| right(&client.name, set))
            })
        })
    }

    pub fn len(&self) -> usize {
        self.with(|state| state.clients.len())
    }

    /// Ends all clients and returns their history.
    pub fn finish(mut self) -> History {
        self.stop();
        self.with(|state| std::mem::take(&mut state.history))
    }

    fn stop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the clients' thread panicked");
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        let mut state = self.shared.state.lock().expect("no holder panics");
        self.shared.wanted.fetch_sub(1, Ordering::SeqCst);
        act(&mut state)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    let network = shared.state.lock().expect("no holder panics").plan.network.clone();
    if let Some(network) = network {
        enter(&network);
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut came = Vec::new();
    while !shared.ended.load(Ordering::SeqCst) {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 256];
        let wait = Timespec::try_from(TURN).ok();
        let Ok((events, _)) = epoll::wait(&shared.epoll, &mut events, wait.as_ref()) else {
            continue;
        };
        while shared.wanted.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        let mut state = shared.state.lock().expect("no holder panics");
        for event in events.iter() {
            let index = usize::try_from(event.data.u64()).expect("it was a usize");
            let flags = event.flags;
            let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            state.read(index, ended, &mut buffer, &mut came, &shared.epoll);
        }
        state.begin_those_due(&shared.epoll);
        state.ask_those_due();
        state.report();
    }
    let mut state = shared.state.lock().expect("no holder panics");
    state.clients.iter_mut().for_each(|client| client.socket = None);
}

impl State {
    fn begin_those_due(&mut self, epoll: &OwnedFd) {
        while let Some(&Reverse((at, index))) = self.later.peek() {
            if at > Instant::now() {
                return;
            }
            self.later.pop();
            let client = &mut self.clients[index];
            if client.stream == 0 && client.failures == 0 && client.address == 0 {
                client.since = Instant::now();
            }
            self.begin(index, epoll);
        }
    }

    fn ask_those_due(&mut self) {
        while let Some(&Reverse((at, index))) = self.questions.peek() {
            if at > Instant::now() {
                return;
            }
            self.questions.pop();
            self.clients[index].will_ask = false;
            self.ask(index);
        }
    }

    /// Makes a client ask DNS once it may. What it is told counts when it connects next: a
    /// client that lost its stream connects at once, to the addresses that it has.
    fn ask_later(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if self.plan.dns.is_some() && !std::mem::replace(&mut client.will_ask, true) {
            let now = Instant::now();
            let at = client.asked.map_or(now, |asked| now.max(asked + DNS_FLOOR));
            self.questions.push(Reverse((at, index)));
        }
    }

    fn ask(&mut self, index: usize) {
        let Some(Dns { servers, name }) = &self.plan.dns else { return };
        let answer = servers.iter().find_map(|server| dns::balancers(*server, name));
        let client = &mut self.clients[index];
        client.asked = Some(Instant::now());
        client.balancers = answer.filter(|all| !all.is_empty()).unwrap_or_default();
    }

    fn begin(&mut self, index: usize, epoll: &OwnedFd) {
        if self.plan.dns.is_some() && self.clients[index].balancers.is_empty() {
            self.ask(index);
        }
        let client = &mut self.clients[index];
        let known = if self.plan.dns.is_some() { &client.balancers } else { &self.plan.balancers };
        let Some(addr) = known.get(client.address).copied() else {
            return self.failed(index, epoll);
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .expect("a socket: is the limit of open files too low?");
        sockopt::set_tcp_nodelay(&socket, true).expect("an option of every socket");
        if client.manner == Manner::Deaf {
            sockopt::set_socket_recv_buffer_size(&socket, DEAF_ROOM).expect("an option");
        }
        let connecting = rustix::net::connect(&socket, &addr);
        if !matches!(connecting, Ok(()) | Err(rustix::io::Errno::INPROGRESS)) {
            return self.failed(index, epoll);
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(index as u64), flags)
            .expect("a new socket can be watched");
        client.begin(socket);
    }

    /// Reads what a client was sent. `ended` is whether the balancer has closed the connection.
    fn read(
        &mut self,
        index: usize,
        ended: bool,
        buffer: &mut [u8],
        came: &mut Vec<Came>,
        epoll: &OwnedFd,
    ) {
        loop {
            let client = &mut self.clients[index];
            client.flush();
            let Some(socket) = &client.socket else { return };
            let flags = rustix::net::RecvFlags::empty();
            let count = match rustix::net::recv(socket, &mut *buffer, flags) {
                Ok((count @ 1.., _)) => count,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                Ok(_) | Err(_) => return self.over(index, epoll),
            };
            client.take(&buffer[..count], came);
            for came in came.drain(..) {
                match came {
                    Came::Message(message) => self.message(index, &message),
                    Came::End => return self.over(index, epoll),
                }
            }
            let client = &mut self.clients[index];
            client.flush();
            if client.manner == Manner::Deaf && client.has_list {
                let socket = client.socket.as_ref().expect("it was read from");
                epoll::delete(epoll, socket).expect("it was watched");
                return;
            }
            // A short read has emptied the socket, and epoll is edge-triggered. The end of the
            // connection has no further edge if it came before this read.
            if count < buffer.len() && !ended {
                return;
            }
        }
    }

    fn message(&mut self, index: usize, message: &[u8]) {
        let client = &mut self.clients[index];
        let number = u32::try_from(index).expect("a crowd is small");
        let at = Instant::now();
        let Some(what) = client.understand(message, &mut self.history) else { return };
        if !std::mem::replace(&mut client.has_list, true) {
            client.failures = 0;
            self.history.waits.push(Wait { client: number, ended: at, took: at - client.since });
        }
        client.received = Some(what);
        let (client, stream) = (number, client.stream);
        self.history.received.push(Received { client, stream, at, what });
    }

    /// Handles the end of a connection or a stream.
    fn over(&mut self, index: usize, epoll: &OwnedFd) {
        let client = &mut self.clients[index];
        client.socket = None;
        if !client.initial {
            return self.failed(index, epoll);
        }
        client.address = 0;
        if std::mem::take(&mut client.has_list) {
            client.since = Instant::now();
            let client = u32::try_from(index).expect("a crowd is small");
            self.history.lost.push(Lost { client, at: Instant::now() });
        }
        // After an initial response, a client reconnects at once.
        self.begin(index, epoll);
        self.ask_later(index);
    }

    /// Handles an attempt that failed before the initial response: tries the next address, or
    /// all of them again after the backoff.
    fn failed(&mut self, index: usize, epoll: &OwnedFd) {
        let client = &mut self.clients[index];
        if client.connected {
            self.history.refused += 1;
        } else {
            self.history.unconnected += 1;
            let dns = self.plan.dns.is_some();
            let known = if dns { &client.balancers } else { &self.plan.balancers };
            if client.address + 1 < known.len() {
                client.address += 1;
                return self.begin(index, epoll);
            }
        }
        client.address = 0;
        self.ask_later(index);
        let client = &mut self.clients[index];
        let grown = BACKOFF.mul_f64(GROWTH.powi(client.failures.min(20) as i32)).min(BACKOFF_MAX);
        client.failures += 1;
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = (self.random >> 33) as f64 / f64::from(u32::MAX >> 1);
        let pause = grown.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
        self.later.push(Reverse((Instant::now() + pause, index)));
    }

    fn report(&mut self) {
        let Some(interval) = self.plan.report else { return };
        while self.reported.elapsed() >= interval {
            self.reported += interval;
            self.clients.iter_mut().filter(|client| client.has_list).for_each(Client::report);
        }
    }
}

/// Moves this thread into another network.
pub fn enter(network: &str) {
    let file = File::open(network).expect("the network is there");
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
        .expect("root may enter a network");
}
