//! Loopback ports that stay reserved for a test while its servers stop and start.

use std::sync::Mutex;

use socket2::{Domain, Protocol, Socket, Type};

/// The sockets that reserve the ports, until this process ends.
static RESERVED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// Reserves a TCP port at which no process listens, and that the system gives to no process
/// that asks for port 0 or connects.
///
/// The reserving socket is bound and never listens. Linux lets another socket listen at the
/// port if both have `SO_REUSEADDR`, which servers in Rust, Go and C++ set. So a server that
/// was killed can bind its port again.
pub fn free_port() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_address(true).expect("the option is known");
    let anywhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    socket.bind(&anywhere.into()).expect("a port is free");
    let bound = socket.local_addr().ok().and_then(|address| address.as_socket_ipv4());
    RESERVED.lock().expect("no holder panics").push(socket);
    bound.expect("a bound socket has an address").port()
}
