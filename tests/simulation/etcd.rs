//! etcd in the simulation: the embedded server on the simulated network.
//!
//! In: orders of the plan, and calls of all hosts. Out: answers, and a record of every
//! revision. An observer inside the host writes it before another host can read it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use embedded_etcd::Data;
use etcd_client::{Client, DeleteOptions, EventType, GetOptions, WatchOptions};
use futures_util::stream::{self, StreamExt};
use lookaside::registry::etcd::{Connect, Dial, Dialed};
use lookaside::seed;
use tokio::sync::{Mutex, mpsc};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

use crate::history::{History, Set, What};
use crate::plan::Host;
use crate::policies::FLEET;

pub const PORT: u16 = 2379;
pub const PREFIX: &str = "/svc/";

/// The data that survive etcd's crashes.
#[derive(Clone)]
pub struct Disk(Rc<RefCell<Content>>);

struct Content {
    data: Data,
    /// The data that the next start begins with instead of `data`.
    next: Option<Data>,
    backup: Data,
    seen: Seen,
}

/// The state of the store that the observer recorded last.
#[derive(Default)]
struct Seen {
    /// `None` if the data were replaced since.
    revision: Option<i64>,
    keys: BTreeMap<String, SocketAddr>,
}

/// Why keys differ from before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// A client wrote them.
    Owner,
    /// The store was replaced by an empty one or by an older copy.
    Restorer,
}

/// An operator's action in etcd.
#[derive(Debug)]
pub enum Order {
    Sweep(usize),
    Compact,
    Put(String, String),
    /// Registers a backend of the large service, or deletes its key.
    Fleet {
        id: String,
        addr: SocketAddr,
        zone: &'static str,
        up: bool,
    },
}

impl Disk {
    pub fn new() -> Self {
        let (data, backup) = (empty(), empty());
        Self(Rc::new(RefCell::new(Content { data, next: None, backup, seen: Seen::default() })))
    }

    pub fn back_up(&self) {
        let mut content = self.0.borrow_mut();
        content.backup = content.data.backup();
    }

    pub fn wipe(&self) {
        self.0.borrow_mut().next = Some(empty());
    }

    pub fn restore(&self) {
        let mut content = self.0.borrow_mut();
        content.next = Some(content.backup.backup());
    }

    /// Returns the data for this start, which may differ from those of the last one.
    fn start(&self) -> Data {
        let mut content = self.0.borrow_mut();
        if let Some(next) = content.next.take() {
            content.data = next;
            content.seen.revision = None;
        }
        content.data.clone()
    }
}

/// A store whose identity and lease ids follow from the simulation's seed.
fn empty() -> Data {
    Data::with_random(seed::random)
}

/// Returns how every host of the simulation reaches etcd.
pub fn connect() -> Connect {
    let dial: Dial = Arc::new(|_| {
        Box::pin(async {
            let stream = TcpStream::connect((Host::Etcd.to_string(), PORT)).await?;
            Ok(Box::new(stream) as Dialed)
        })
    });
    Connect::new(&["etcd:2379"], None, None).expect("it is an endpoint").with_dial(dial)
}

pub async fn run(
    disk: Disk,
    orders: Rc<Mutex<mpsc::Receiver<Order>>>,
    history: History,
) -> turmoil::Result {
    let data = disk.start();
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let address = listener.local_addr()?;
    let (inside, own) = tokio::io::duplex(1 << 20);
    let accepted = stream::unfold(listener, |listener| async move {
        let (stream, _) = listener.accept().await.ok()?;
        Some((Incoming(Box::new(stream)), listener))
    });
    let own = stream::once(async { Incoming(Box::new(own)) });
    let incoming = own.chain(stream::pending()).boxed_local();
    let incoming = stream::select(incoming, accepted.boxed_local());
    tokio::task::spawn_local(async move {
        let own = Arc::new(std::sync::Mutex::new(Some(Box::new(inside) as Dialed)));
        let dial: Dial = Arc::new(move |_| {
            let own = own.lock().expect("nobody panics").take();
            Box::pin(async { own.ok_or_else(|| std::io::ErrorKind::NotConnected.into()) })
        });
        let connect =
            Connect::new(&["etcd:2379"], None, None).expect("it is an endpoint").with_dial(dial);
        let client = connect.client(0).await.expect("there is no user");
        let mut orders = orders.lock().await;
        let (mut writer, mut watcher) = (client.clone(), client);
        let noting = note_all(&mut watcher, &disk, &history);
        let obeying = async {
            while let Some(order) = orders.recv().await {
                obey(&mut writer, &disk, &history, order).await.expect("etcd does as asked");
            }
        };
        let (noted, ()) = tokio::join!(noting, obeying);
        noted.expect("the inside connection does not break");
    });
    embedded_etcd::serve_data(&data, address, incoming, std::future::pending()).await?;
    Ok(())
}

/// Records every revision from the last one recorded on.
async fn note_all(
    client: &mut Client,
    disk: &Disk,
    history: &History,
) -> Result<(), etcd_client::Error> {
    let seen = disk.0.borrow().seen.revision;
    let from = match seen {
        Some(revision) => revision,
        None => {
            let all = client.get(PREFIX, Some(GetOptions::new().with_prefix())).await?;
            let revision = all.header().map_or(0, |header| header.revision());
            let pair = |kv: &etcd_client::KeyValue| (text(kv.key()), addr(kv.value()));
            let keys = all.kvs().iter().map(pair).collect();
            note(disk, history, revision, keys, Writer::Restorer);
            revision
        }
    };
    let options = WatchOptions::new().with_prefix().with_start_revision(from + 1);
    let mut watch = client.watch(PREFIX, Some(options)).await?;
    while let Some(response) = watch.message().await? {
        assert!(!response.canceled(), "the one inside lags behind: {}", response.cancel_reason());
        let revision = |event: &etcd_client::Event| event.kv().map_or(0, |kv| kv.mod_revision());
        for events in response.events().chunk_by(|a, b| revision(a) == revision(b)) {
            let mut keys = disk.0.borrow().seen.keys.clone();
            for event in events {
                let kv = event.kv().expect("an event has a key");
                let _ = match event.event_type() {
                    EventType::Put => keys.insert(text(kv.key()), addr(kv.value())),
                    EventType::Delete => keys.remove(&text(kv.key())),
                };
            }
            note(disk, history, revision(&events[0]), keys, Writer::Owner);
        }
    }
    Ok(())
}

/// Records the services whose set differs from before.
fn note(
    disk: &Disk,
    history: &History,
    revision: i64,
    keys: BTreeMap<String, SocketAddr>,
    writer: Writer,
) {
    let seen = &mut disk.0.borrow_mut().seen;
    for (key, old) in &seen.keys {
        // The owner of the key moved, so the old address may leave. A restored copy
        // with an older address removes no backend.
        if writer == Writer::Owner && keys.get(key).is_some_and(|new| new != old) {
            history.note(What::Asked { service: service(key), addr: *old });
        }
    }
    let names: BTreeSet<_> = keys.keys().chain(seen.keys.keys()).map(|key| service(key)).collect();
    for name in names {
        let of = |keys: &BTreeMap<String, SocketAddr>| -> Set {
            keys.iter().filter(|(key, _)| service(key) == name).map(|(_, addr)| *addr).collect()
        };
        let set = of(&keys);
        if set != of(&seen.keys) {
            history.note(What::Holds { revision, service: name, set });
        }
    }
    *seen = Seen { revision: Some(revision), keys };
}

async fn obey(
    client: &mut Client,
    disk: &Disk,
    history: &History,
    order: Order,
) -> Result<(), etcd_client::Error> {
    match order {
        Order::Sweep(of) => {
            for (key, addr) in &disk.0.borrow().seen.keys {
                if service(key) == of {
                    history.note(What::Asked { service: of, addr: *addr });
                }
            }
            let options = DeleteOptions::new().with_prefix();
            client.delete(format!("{PREFIX}s{of}/"), Some(options)).await?;
        }
        Order::Compact => {
            let revision = disk.0.borrow().seen.revision.unwrap_or(0);
            // This fails if the revision is compacted already.
            let _ = client.compact(revision, None).await;
        }
        Order::Put(key, value) => drop(client.put(key, value, None).await?),
        Order::Fleet { id, addr, zone, up } => {
            let key = format!("{PREFIX}s{FLEET}/{id}");
            if up {
                let value = format!(r#"{{"addr":"{addr}","metadata":{{"zone":"{zone}"}}}}"#);
                client.put(key, value, None).await?;
            } else if disk.0.borrow().seen.keys.contains_key(&key) {
                history.note(What::Asked { service: FLEET, addr });
                client.delete(key, None).await?;
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn addr(value: &[u8]) -> SocketAddr {
    let text = text(value);
    let json = text.strip_prefix("{\"addr\":\"").and_then(|rest| rest.split('"').next());
    json.unwrap_or(&text).parse().expect("registrants write addresses")
}

/// Returns the service number `N` of a key `/svc/sN/ID`.
fn service(key: &str) -> usize {
    let name = key.strip_prefix(PREFIX).and_then(|rest| rest.split('/').next());
    name.and_then(|name| name.strip_prefix('s')?.parse().ok()).expect("a registrant's key")
}

/// A connection of the simulated network, or the observer's own.
struct Incoming(Dialed);

impl Connected for Incoming {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: None }
    }
}

mod io {
    //! Reading and writing through the box.

    use std::io::Result;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Incoming;

    impl AsyncRead for Incoming {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Incoming {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}
