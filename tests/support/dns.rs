//! A DNS client that asks a given server by UDP, independent of the machine's resolver.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};

/// Returns the number of SRV records that a server gives for `name`, such as
/// `_grpclb._tcp.hello.lookaside.internal`; `None` if it does not answer.
pub fn srv_records(server: SocketAddr, name: &str) -> Option<usize> {
    let answer = ask(server, name, RecordType::SRV)?;
    let records = answer.answers.iter();
    Some(records.filter(|record| matches!(record.data, RData::SRV(_))).count())
}

/// Returns the names and ports of the SRV records that a server gives for `name`; `None` if it
/// does not answer.
pub fn srv_targets(server: SocketAddr, name: &str) -> Option<Vec<(String, u16)>> {
    let target = |data: &RData| match data {
        RData::SRV(srv) => Some((srv.target.to_string(), srv.port)),
        _ => None,
    };
    let answer = ask(server, name, RecordType::SRV)?;
    Some(answer.answers.iter().filter_map(|record| target(&record.data)).collect())
}

/// Returns the IPv4 addresses that a server gives for `name`, sorted; `None` if it does not
/// answer.
pub fn addresses(server: SocketAddr, name: &str) -> Option<Vec<Ipv4Addr>> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    let answer = ask(server, name, RecordType::A)?;
    let mut all: Vec<_> =
        answer.answers.iter().filter_map(|record| address(&record.data)).collect();
    all.sort_unstable();
    Some(all)
}

fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes a timeout");
    let mut question = Message::query();
    let name = Name::from_ascii(name).expect("a DNS name");
    question.add_query(Query::query(name, kind));
    socket.send_to(&question.to_vec().expect("a message is written"), server).ok()?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).ok()?;
    Some(Message::from_vec(&answer[..length]).expect("a message is read"))
}
