//! A TCP proxy to a server. It can be cut and mended, and it can forget connections like
//! load balancers and firewalls do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A running proxy. It passes connections on until it is cut.
pub struct Proxy {
    address: SocketAddr,
    way_tx: watch::Sender<Way>,
    passed: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Way {
    whole: bool,
    /// How older connections were forgotten.
    forgot: Forgot,
    /// The number of times that connections were forgotten.
    times: usize,
}

#[derive(Clone, Copy)]
enum Forgot {
    Nothing,
    /// Connections stay open and pass nothing on.
    Silently,
    /// Connections end with a reset.
    ByReset,
}

impl Proxy {
    /// Starts a proxy to a loopback port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (way_tx, way_rx) =
            watch::channel(Way { whole: true, forgot: Forgot::Nothing, times: 0 });
        let passed = Arc::new(AtomicUsize::new(0));
        let counter = passed.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let way = *way_rx.borrow();
                if way.whole {
                    tokio::spawn(pass(near, port, way.times, way_rx.clone(), counter.clone()));
                }
            }
        });
        Self { address, way_tx, passed }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.way_tx.send_modify(|way| way.whole = false);
    }

    pub fn mend(&self) {
        self.way_tx.send_modify(|way| way.whole = true);
    }

    /// Passes nothing more on for the current connections, without closing them.
    pub fn forget_silently(&self) {
        self.forget(Forgot::Silently);
    }

    /// Resets the current connections.
    pub fn forget_by_reset(&self) {
        self.forget(Forgot::ByReset);
    }

    fn forget(&self, forgot: Forgot) {
        self.way_tx.send_modify(|way| {
            way.forgot = forgot;
            way.times += 1;
        });
    }

    /// Returns the number of connections passed on so far.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

async fn pass(
    mut near: TcpStream,
    port: u16,
    times: usize,
    mut way_rx: watch::Receiver<Way>,
    counter: Arc<AtomicUsize>,
) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    counter.fetch_add(1, Ordering::SeqCst);
    let way = tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => return,
        way = way_rx.wait_for(|way| !way.whole || way.times > times) => way.map(|way| *way),
    };
    match way {
        Ok(Way { whole: true, forgot: Forgot::Silently, .. }) => std::future::pending().await,
        Ok(Way { whole: true, forgot: Forgot::ByReset, .. }) => {
            let _ = socket2::SockRef::from(&near).set_linger(Some(std::time::Duration::ZERO));
        }
        _ => {}
    }
}
