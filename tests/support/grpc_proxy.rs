//! `etcd grpc-proxy` between clients and a real etcd.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{eventually, free_port};

/// A running proxy. It ends when this value is dropped.
pub struct GrpcProxy {
    port: u16,
    child: Child,
}

impl GrpcProxy {
    /// Starts a proxy in front of the etcd at this address.
    pub fn to(endpoint: &str) -> Self {
        let port = free_port();
        let child = Command::new("etcd")
            .args(["grpc-proxy", "start", "--endpoints", endpoint])
            .args(["--listen-addr", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd runs: Debian package etcd-server");
        let mut proxy = Self { port, child };
        eventually("the proxy's port", || {
            assert!(proxy.runs(), "etcd grpc-proxy does not start at port {port}");
            let address = ([127, 0, 0, 1], port).into();
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for GrpcProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
