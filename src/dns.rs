//! The authoritative name server of the zone: sockets here, answers in `answer`.
//!
//! In: two bound sockets, the catalog, the balancers' addresses. Out: answers.
//! It never recurses, never asks another server, and keeps no state of a question.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::answer::{Facts, Reply, Transport};
use self::secondaries::Secondaries;
use crate::catalog::Catalog;
use crate::clock;
use crate::model::{Host, HostPort, Zone};
use crate::replica::known::Replicas;
use crate::telemetry::{Counters, Protocol};

pub mod answer;
mod byte_limit;
pub mod named_services;
mod secondaries;
pub mod skydns;
mod tcp;
mod udp;
mod work_limit;
pub mod zone;

/// The balancers' addresses that DNS answers give.
#[derive(Debug, Clone)]
pub enum Advertised {
    /// These addresses; the newest value counts.
    Known(watch::Receiver<Arc<[HostPort]>>),
    /// This balancer alone. It listens on all its addresses, so the answer gives the
    /// address at which the question arrived: the asker can reach that one.
    Arrival {
        /// The address where gRPC listens: a wildcard address with its port.
        listen: SocketAddr,
    },
    /// All balancers that announce themselves, and this one.
    Replicas {
        /// The balancers; the newest value counts.
        replicas: watch::Receiver<Arc<Replicas>>,
        /// The address of this one; `None`: as in `Arrival`.
        own: Option<HostPort>,
        /// The address where gRPC listens.
        listen: SocketAddr,
    },
}

/// Answers questions from the zone, the catalog and the balancers' addresses.
pub struct Answers {
    zone: Zone,
    catalog: Catalog,
    advertised: Advertised,
    counters: Arc<Counters>,
    secondaries: Secondaries,
    questions: AtomicUsize,
}

/// How long to wait after the operating system refused a socket operation (no
/// descriptors left). Trying again at once would only use up the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a UDP and a TCP socket to one address: an asker that gets a truncated answer
/// comes back by TCP to the same port. With port 0, binds a port that is free for both.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    /// A port that is free for TCP may be taken for UDP, but rarely often in a row.
    const TRIES: usize = 16;
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(listen).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if listen.port() != 0 || tries == TRIES => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

/// Answers questions until `shutdown` is cancelled.
///
/// # Errors
/// When the UDP socket cannot be set up. No later failure ends it.
pub async fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    answers: Answers,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let local = udp.local_addr()?.ip();
    let udp = udp::Port::new(udp)?;
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        never = secondaries::keep(&answers, local) => match never {},
        never = udp.answer_all(&answers) => match never {},
        never = tcp::answer_all(&tcp, &answers) => match never {},
    }
}

impl Answers {
    /// Makes answers for this zone from this catalog.
    #[must_use]
    pub fn new(
        zone: Zone,
        catalog: Catalog,
        advertised: Advertised,
        counters: Arc<Counters>,
    ) -> Self {
        let (secondaries, questions) = (Secondaries::new(Vec::new()), AtomicUsize::new(0));
        Self { zone, catalog, advertised, counters, secondaries, questions }
    }

    /// Lets DNS servers at these addresses have the whole zone, and tells them of its changes.
    #[must_use]
    pub fn with_secondaries(self, addresses: Vec<SocketAddr>) -> Self {
        Self { secondaries: Secondaries::new(addresses), ..self }
    }

    /// Answers one message of an asker. `arrival` is the local address at which it came, where
    /// that is known. `may_visit` decides whether that many endpoints may be looked at for the
    /// answer.
    fn answer(
        &self,
        query: &[u8],
        transport: Transport,
        asker: IpAddr,
        arrival: Option<IpAddr>,
        may_visit: &dyn Fn(usize) -> bool,
    ) -> Reply {
        let seed = self.seed();
        let balancers = self.balancers(arrival, seed);
        let facts = Facts {
            zone: &self.zone,
            balancers: balancers.as_deref(),
            asker,
            denied: &|target| {
                let denials = &self.counters.denials;
                denials.add(
                    Protocol::Dns,
                    &target.canonical(),
                    &SocketAddr::new(asker, 0).into(),
                    clock::now(),
                );
            },
            lookup: &|target| self.catalog.lookup(target),
            may_visit,
            serial: self.secondaries.serial(),
            seed,
        };
        answer::answer(query, transport, &facts)
    }

    /// Counts a reply. Returns the bytes to send, if any.
    fn count(&self, reply: Reply) -> Option<Vec<u8>> {
        match reply {
            Reply::Answer(bytes) => {
                self.counters.dns_answers.increment();
                Some(bytes)
            }
            Reply::Rejection(bytes) => {
                self.counters.dns_rejected.increment();
                Some(bytes)
            }
            Reply::Silence => {
                self.counters.dns_rejected.increment();
                None
            }
        }
    }

    /// Returns a number that starts the rotation of an answer. It scrambles a count of
    /// questions: clients ask several questions in a fixed order, so a plain count
    /// would give each kind of question every second or fourth number only, and some
    /// rotations never.
    fn seed(&self) -> usize {
        scramble(self.questions.fetch_add(1, Ordering::Relaxed) as u64)
    }

    /// Returns the balancers that an answer names, in its order; `None` if that is not known.
    fn balancers(&self, arrival: Option<IpAddr>, seed: usize) -> Option<Vec<HostPort>> {
        let all = match &self.advertised {
            Advertised::Known(balancers) => {
                let mut all = balancers.borrow().to_vec();
                let first = seed % all.len().max(1);
                all.rotate_left(first);
                all
            }
            Advertised::Arrival { listen } => arrived_at(*listen, arrival).into_iter().collect(),
            Advertised::Replicas { replicas, own, listen } => {
                let own = own.clone().or_else(|| arrived_at(*listen, arrival));
                let on_host = arrival.is_some_and(|ip| ip.to_canonical().is_loopback());
                let replicas = replicas.borrow().clone();
                replicas.in_dns(own, on_host, seed)
            }
        };
        Some(all).filter(|all| !all.is_empty())
    }

    /// Returns the balancers that copies of the zone name; `None` if that is not known. No
    /// question arrives for them. So a balancer that listens on a wildcard address is named by
    /// the address of its DNS server, `local`, or else by the address that it announces.
    fn balancers_in_copies(&self, local: IpAddr) -> Option<Vec<HostPort>> {
        let Advertised::Replicas { replicas, own, listen } = &self.advertised else {
            return self.balancers(Some(local), 0);
        };
        let replicas = replicas.borrow().clone();
        let announced = replicas.rows.first().filter(|row| !row.host_only);
        let own = own.clone().or_else(|| arrived_at(*listen, Some(local)));
        let own = own.or_else(|| announced?.address.clone());
        Some(replicas.in_dns(own, false, 0)).filter(|all| !all.is_empty())
    }
}

/// Returns the address of a balancer that listens on a wildcard address: the one at which
/// the question arrived, unless it takes no connections there.
fn arrived_at(listen: SocketAddr, arrival: Option<IpAddr>) -> Option<HostPort> {
    let ip = arrival?.to_canonical();
    // 0.0.0.0 receives no IPv6 traffic.
    if listen.is_ipv4() && ip.is_ipv6() {
        return None;
    }
    HostPort::new(Host::Ip(ip), listen.port()).ok()
}

/// MurmurHash3's finaliser, which is in the public domain.
fn scramble(mut number: u64) -> usize {
    for factor in [0xFF51_AFD7_ED55_8CCD_u64, 0xC4CE_B9FE_1A85_EC53] {
        number = (number ^ (number >> 33)).wrapping_mul(factor);
    }
    (number >> 33) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::known::{Announced, Row, row_of_address};

    #[test]
    fn a_copy_names_its_own_balancer_too() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let address = |last| HostPort::new(Host::Ip(ip(last)), 12000).unwrap();
        let check = |listen: [u8; 4], local: IpAddr, host_only, expected: &[u8]| {
            let own = Row { own: true, host_only, ..row_of_address(&address(1)) };
            let replicas = Replicas {
                rows: vec![own, row_of_address(&address(2))],
                read: true,
                current: true,
                rejected: Vec::new(),
                announced: Announced::Yes,
            };
            let (_sender, replicas) = watch::channel(Arc::new(replicas));
            let listen = SocketAddr::from((listen, 12000));
            let own = HostPort::new(Host::Ip(listen.ip()), 12000).ok();
            let advertised = Advertised::Replicas { replicas, own, listen };
            let answers =
                Answers::new(Zone::new("z").unwrap(), Catalog::new(), advertised, Arc::default());
            let mut found = answers.balancers_in_copies(local).unwrap_or_default();
            found.sort_unstable_by_key(ToString::to_string);
            assert_eq!(found, expected.iter().map(|last| address(*last)).collect::<Vec<_>>());
        };
        let any = IpAddr::from([0; 4]);
        check([10, 0, 0, 9], any, false, &[2, 9]);
        check([0; 4], ip(5), false, &[2, 5]);
        check([0; 4], any, false, &[1, 2]);
        // The address that it announces is reached from its own host only.
        check([0; 4], any, true, &[2]);
        // A single balancer that announces nothing.
        let check = |local: IpAddr, expected: Option<Vec<HostPort>>| {
            let listen = SocketAddr::from(([0; 4], 12000));
            let advertised = Advertised::Arrival { listen };
            let answers =
                Answers::new(Zone::new("z").unwrap(), Catalog::new(), advertised, Arc::default());
            assert_eq!(answers.balancers_in_copies(local), expected);
        };
        check(ip(5), Some(vec![address(5)]));
        check(any, None);
    }

    #[test]
    fn whoever_asks_every_nth_time_still_sees_every_rotation() {
        let (_sender, balancers) = watch::channel(Arc::default());
        let answers = Answers::new(
            Zone::new("z").unwrap(),
            Catalog::new(),
            Advertised::Known(balancers),
            Arc::default(),
        );
        let seeds: Vec<_> = (0..1200).map(|_| answers.seed()).collect();
        for stride in 1..=6 {
            for len in 2..=16 {
                let mut starts: Vec<_> = seeds.iter().step_by(stride).map(|s| s % len).collect();
                starts.sort_unstable();
                starts.dedup();
                assert_eq!(starts.len(), len, "every {stride}th question, {len} addresses");
            }
        }
    }
}
