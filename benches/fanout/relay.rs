//! A slow path to a server: it passes bytes on, each so much later than it came.
//!
//! In: a server and the delay in one direction. Out: the address of the path's near end, for
//! one connection. Loopback itself cannot be slowed down without the rights to do so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Opens a path for one connection. Its threads end with that connection.
pub(crate) fn relay(server: SocketAddr, delay: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    let far = TcpStream::connect(server)?;
    far.set_nodelay(true)?;
    thread::spawn(move || {
        let Ok((near, _)) = listener.accept() else { return };
        let _ = near.set_nodelay(true);
        let both = (near.try_clone(), far.try_clone());
        let (Ok(near_in), Ok(far_in)) = both else { return };
        thread::spawn(move || pass(near_in, far, delay));
        pass(far_in, near, delay);
    });
    Ok(addr)
}

/// Passes one direction on until it ends, and then ends the other connection too.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (pieces, later) = channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (at, bytes) in later {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(pieces);
    let _ = writer.join();
}
