//! Accepts connections to the admin address: by TCP or at a Unix socket, with or without
//! TLS.
//!
//! In: an address, and certificates that may be replaced. Out: streams of bytes.
//! A Unix socket is for its owner and group only from the first moment on. The file of a
//! process that died is replaced; that of a living one is not.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tokio_rustls::rustls::ServerConfig;

use crate::reload::{Reloading, ServerTls};

/// Where the admin server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Certificate and key of the admin server, read again when their files change.
pub type Tls = Reloading<ServerTls>;

/// A bound socket.
pub struct Listener {
    socket: Socket,
    file: Option<SocketFile>,
    tls: Option<Tls>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// The file of a Unix socket. Dropped, it is removed.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own file there.
    identity: Option<(u64, u64)>,
}

/// A connection. It has no address if it came through a Unix socket.
pub(super) struct Accepted {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) peer: Option<SocketAddr>,
    /// The certificate to show now; `None` without TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// A stream of bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The permissions of a Unix socket: owner and group may connect.
const MODE: u32 = 0o660;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1_024;

impl Listener {
    /// Listens at an address. `tls` is for TCP.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub async fn bind(address: &Address, tls: Option<Tls>) -> io::Result<Self> {
        let (socket, file) = match address {
            Address::Tcp(address) => (Socket::Tcp(TcpListener::bind(address).await?), None),
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                let identity = std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
                let file = SocketFile { path: path.clone(), identity };
                (Socket::Unix(listener, path.clone()), Some(file))
            }
        };
        Ok(Self { socket, file, tls })
    }

    /// Takes the file of a Unix socket out, so that the caller decides when it is removed.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Returns the address, with the port that the system chose.
    ///
    /// # Errors
    /// If the system does not know it.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer): (Box<dyn Duplex>, _) = match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Box::new(stream), Some(peer))
            }
            Socket::Unix(listener, _) => (Box::new(listener.accept().await?.0), None),
        };
        Ok(Accepted { stream, peer, tls: self.tls.as_ref().map(|tls| tls.value().config) })
    }
}

impl From<TcpListener> for Listener {
    /// A listener without TLS.
    fn from(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), file: None, tls: None }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let error = "a file that is no socket is there: name another path";
            return Err(io::Error::new(ErrorKind::AlreadyExists, error));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
            // Whoever bound it has died.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        },
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before the socket listens, so nobody comes before the permissions.
    std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::metadata(&self.path).map(|file| (file.dev(), file.ino())).ok();
        if found.is_some() && found == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
