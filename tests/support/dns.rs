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

/// Returns the addresses and ports behind the SRV records that a server gives for `name`, in
/// the order of the answer; `None` if it does not answer.
pub fn balancers(server: SocketAddr, name: &str) -> Option<Vec<SocketAddr>> {
    let answer = ask(server, name, RecordType::SRV)?;
    let mut all = Vec::new();
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else { continue };
        for own in answer.additionals.iter().filter(|own| own.name == srv.target) {
            if let RData::A(address) = &own.data {
                all.push(SocketAddr::from((address.0, srv.port)));
            }
        }
    }
    Some(all)
}

/// Returns the texts of the TXT records that a server gives for `name`; `None` if it does not
/// answer, or has none.
pub fn texts(server: SocketAddr, name: &str) -> Option<Vec<String>> {
    let text = |data: &RData| match data {
        RData::TXT(text) => {
            let all = text.txt_data.concat();
            Some(String::from_utf8_lossy(&all).into_owned())
        }
        _ => None,
    };
    let answer = ask(server, name, RecordType::TXT)?;
    let all: Vec<_> = answer.answers.iter().filter_map(|record| text(&record.data)).collect();
    (!all.is_empty()).then_some(all)
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
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("there is a free port");
    // Only a connected socket hears that nobody listens.
    socket.connect(server).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes a timeout");
    let mut question = Message::query();
    let name = Name::from_ascii(name).expect("a DNS name");
    question.add_query(Query::query(name, kind));
    socket.send(&question.to_vec().expect("a message is written")).ok()?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).ok()?;
    Some(Message::from_vec(&answer[..length]).expect("a message is read"))
}
