//! The writer of registrations.
//!
//! In: registrations and deregistrations of a test. Out: writes to the model, and
//! then to etcd.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use etcd_client::{Client, PutOptions, Txn, TxnOp};
use tokio::runtime::Runtime;

use super::model::Model;
use crate::support::{WAIT_MAX, crowd::Set};

/// Registers and deregisters any number of backends.
pub struct Writer {
    runtime: Runtime,
    client: Client,
    pub model: Model,
}

/// Backends that take connections, at one port of every loopback address.
pub struct Living {
    port: u16,
    listener: TcpListener,
}

/// A port at which nothing listens, on any address.
pub const DEAD_PORT: u16 = 1;
/// etcd takes no more operations in one transaction.
const TXN_MAX: usize = 128;

/// Returns the address of backend `n` of a service.
pub fn server(service: usize, n: usize, port: u16) -> SocketAddr {
    let byte = |value: usize| u8::try_from(value).expect("there are fewer");
    let ip = Ipv4Addr::new(127, byte(1 + service), byte(n / 250), byte(1 + n % 250));
    SocketAddr::new(ip.into(), port)
}

pub fn key(service: &str, server: SocketAddr) -> String {
    format!("/etcd3_naming/{service}/{server}")
}

impl Writer {
    pub fn new(urls: &[String]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(Client::connect(urls, None)).expect("etcd answers");
        Self { runtime, client, model: Model::default() }
    }

    /// Creates a writer that continues another writer's model.
    pub fn with_model(urls: &[String], model: Model) -> Self {
        Self { model, ..Self::new(urls) }
    }

    pub fn put(&mut self, service: &str, server: SocketAddr) -> Instant {
        self.put_leased(service, server, 0)
    }

    pub fn put_leased(&mut self, service: &str, server: SocketAddr, lease: i64) -> Instant {
        let at = Instant::now();
        self.model.put(service, server, at);
        self.write(&key(service, server), &server.to_string(), lease);
        at
    }

    /// Writes any value under any key. The model does not change.
    pub fn write(&mut self, key: &str, value: &str, lease: i64) {
        let options = PutOptions::new().with_lease(lease);
        let client = &self.client;
        again(&self.runtime, || {
            let mut kv = client.kv_client();
            let options = options.clone();
            async move { kv.put(key, value, Some(options)).await.map(drop) }
        });
    }

    pub fn delete(&mut self, service: &str, server: SocketAddr) -> Instant {
        let at = Instant::now();
        self.model.delete(service, server, at);
        self.erase(service, server);
        at
    }

    /// Deletes a registration from etcd. The model does not change.
    pub fn erase(&mut self, service: &str, server: SocketAddr) {
        let (client, key) = (&self.client, key(service, server));
        again(&self.runtime, || {
            let mut kv = client.kv_client();
            let key = key.clone();
            async move { kv.delete(key, None).await.map(drop) }
        });
    }

    /// Registers many backends before any client is there: one step of the model.
    pub fn put_all(&mut self, service: &str, servers: impl IntoIterator<Item = SocketAddr>) {
        let mut all: Set = self.model.now(service);
        let new: Vec<_> = servers.into_iter().collect();
        all.extend(&new);
        self.model.exactly(service, all, Instant::now());
        for chunk in new.chunks(TXN_MAX) {
            let put = |&at: &SocketAddr| TxnOp::put(key(service, at), at.to_string(), None);
            let txn = Txn::new().and_then(chunk.iter().map(put).collect::<Vec<_>>());
            let client = &self.client;
            again(&self.runtime, || {
                let (mut kv, txn) = (client.kv_client(), txn.clone());
                async move { kv.txn(txn).await.map(drop) }
            });
        }
    }

    pub fn lease(&mut self, seconds: i64) -> i64 {
        let mut leases = self.client.lease_client();
        self.runtime.block_on(leases.grant(seconds, None)).expect("etcd grants leases").id()
    }
}

impl Living {
    pub fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let own = listener.try_clone().expect("a descriptor");
        std::thread::spawn(move || while own.accept().is_ok() {});
        Self { port, listener }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // The thread shares the socket, so this ends its loop too.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Repeats a call until etcd has taken it: etcd may be restarting. Panics when
/// [`WAIT_MAX`] is over.
fn again<F, T>(runtime: &Runtime, mut act: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, etcd_client::Error>>,
{
    // A call to a member that dies gets no answer.
    const TIMEOUT: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let acted = act();
        match runtime.block_on(async { tokio::time::timeout(TIMEOUT, acted).await }) {
            Ok(Ok(done)) => return done,
            other if Instant::now() > deadline => {
                panic!("etcd does not take it: {:?}", other.err())
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
