//! Finds the address by which this machine reaches etcd.
//!
//! In: etcd's endpoints. Out: the source address of a packet to one of them, as the
//! system's routes say. Nothing is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::registry::etcd::Connect;

/// How long to wait for the addresses of an endpoint's name.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Returns the address from which this machine reaches etcd; of several, one that other
/// hosts may reach too. `v4_only` if clients cannot connect by IPv6.
///
/// # Errors
/// If no endpoint has an address to which there is a route: the last reason.
pub async fn source_address(connect: &Connect, v4_only: bool) -> Result<IpAddr, String> {
    let mut reason = "etcd has no address".to_owned();
    let mut loopback = None;
    for attempt in 0..connect.endpoints() {
        match endpoint_sources(connect.endpoint(attempt), v4_only).await {
            Ok(sources) => {
                if let Some(source) = sources.iter().find(|source| !source.is_loopback()) {
                    return Ok(*source);
                }
                loopback = loopback.or(sources.first().copied());
            }
            Err(why) => reason = why,
        }
    }
    loopback.ok_or(reason)
}

/// Returns the source addresses of packets to an endpoint; at least one.
async fn endpoint_sources(endpoint: &str, v4_only: bool) -> Result<Vec<IpAddr>, String> {
    let uri: http::Uri = endpoint.parse().map_err(|_| format!("{endpoint:?} is no URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or_default();
    let found = timeout(LOOKUP_MAX, lookup_host((host.as_str(), port))).await;
    let found = found.map_err(|_| format!("no answer about {host:?} in {LOOKUP_MAX:?}"))?;
    let found = found.map_err(|error| format!("{host:?} has no address: {error}"))?;
    let (mut sources, mut reason) = (Vec::new(), format!("{host:?} has no address that is usable"));
    for destination in found.filter(|address| address.is_ipv4() || !v4_only) {
        match source_to(destination).await {
            Ok(source) => sources.push(source),
            Err(error) => reason = format!("there is no route to {destination}: {error}"),
        }
    }
    if sources.is_empty() { Err(reason) } else { Ok(sources) }
}

/// Returns the source address of packets to `destination`.
async fn source_to(destination: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connecting a UDP socket only asks for the route.
    socket.connect(destination).await?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(endpoints: &[&str], v4_only: bool, expected: Result<&str, &str>) {
        let connect = Connect::new(endpoints, None, None).unwrap();
        let found = source_address(&connect, v4_only).await;
        match expected {
            Ok(address) => assert_eq!(found, Ok(address.parse().unwrap())),
            Err(reason) => assert!(found.clone().unwrap_err().contains(reason), "{found:?}"),
        }
    }

    #[tokio::test]
    async fn the_route_decides_and_what_has_none_says_so() {
        check(&["http://127.0.0.1:1"], true, Ok("127.0.0.1")).await;
        check(&["http://nowhere.invalid:1", "http://127.0.0.1:1"], true, Ok("127.0.0.1")).await;
        check(&["http://[::1]:1"], true, Err("usable")).await;
        check(&["http://nowhere.invalid:1"], true, Err("nowhere.invalid")).await;
    }
}
