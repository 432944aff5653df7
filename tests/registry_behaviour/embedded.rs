//! An embedded registry on a free port of loopback. Dropping the value stops it.

use embedded_etcd::{ServeError, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Embedded {
    url: String,
    port: u16,
    stop_tx: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Embedded {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (stop_tx, stop_rx) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, async {
            let _ = stop_rx.await;
        }));
        Self { url: format!("http://127.0.0.1:{port}"), port, stop_tx: Some(stop_tx), serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server and waits for its end.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        drop(self.stop_tx.take());
        (&mut self.serving).await.expect("it does not panic")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
