//! A way to a server that can be cut and mended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on as long as it is whole.
pub struct Proxy {
    address: SocketAddr,
    whole_tx: watch::Sender<bool>,
    passed: Arc<AtomicUsize>,
}

impl Proxy {
    /// To a port of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (whole_tx, whole_rx) = watch::channel(true);
        let passed = Arc::new(AtomicUsize::new(0));
        let counter = passed.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if !*whole_rx.borrow() {
                    continue;
                }
                let mut whole_rx = whole_rx.clone();
                let counter = counter.clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = whole_rx.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { address, whole_tx, passed }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.whole_tx.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole_tx.send_replace(true);
    }

    /// How many connections it has passed on so far.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}
