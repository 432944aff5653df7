//! Asks DNS servers, as a program without a resolver of its own does.
//!
//! In: the servers to ask, a name and a type. Out: the first answer, by UDP, or by TCP if
//! that was truncated.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::answer::UDP_MAX;
use crate::seed;

/// The system's DNS servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a server has to answer one question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often a server is asked by UDP, where packets get lost.
const TRIES: usize = 2;
const DNS_PORT: u16 = 53;

/// Returns the DNS servers that this system asks, in order.
pub(super) fn of_system() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let servers = named(&text);
    // As the system's resolver does (resolv.conf(5)).
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()] } else { servers }
}

fn named(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // A zone index (%eth0) is for link-local addresses only, and is not read.
        Some(SocketAddr::new(words.next()?.parse::<IpAddr>().ok()?, DNS_PORT))
    };
    text.lines().filter_map(server).collect()
}

/// Asks the servers in turn. Returns the first answer, and who gave it.
///
/// # Errors
/// If no server answers: each with its reason.
pub(super) async fn ask(
    servers: &[SocketAddr],
    name: &str,
    kind: RecordType,
) -> Result<(Message, SocketAddr), String> {
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let name = Name::from_labels(labels).map_err(|error| format!("{name:?}: {error}"))?;
    let mut reasons = Vec::new();
    for &server in servers {
        match ask_one(server, &name, kind).await {
            Ok(answer) => return Ok((answer, server)),
            Err(error) => reasons.push(format!("{server} does not answer: {error}")),
        }
    }
    Err(reasons.join("; "))
}

async fn ask_one(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.id = (seed::random() & 0xffff) as u16;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MAX);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let mut last = io::ErrorKind::TimedOut.into();
    for _ in 0..TRIES {
        match timeout(ANSWER_MAX, by_udp(server, &question, &bytes)).await {
            Ok(Ok(answer)) if answer.metadata.truncation => {
                return timeout(ANSWER_MAX, by_tcp(server, &question, &bytes)).await?;
            }
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        }
    }
    Err(last)
}

async fn by_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anybody may send to this port: what is no answer is passed over.
        if let Some(answer) = answer_to(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    answer_to(question, &buffer).ok_or_else(|| io::Error::other("it answers something else"))
}

fn answer_to(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && (answer.queries.is_empty() || answer.queries == question.queries);
    same.then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_system_reads_them() {
        let text = "# comment\nsearch a b\nnameserver 10.0.0.1\n nameserver 2001:db8::1 \n\
                    nameserver nonsense\noptions ndots:2\n";
        let expected: Vec<SocketAddr> =
            ["10.0.0.1:53", "[2001:db8::1]:53"].map(|one| one.parse().unwrap()).into();
        assert_eq!(named(text), expected);
    }
}
