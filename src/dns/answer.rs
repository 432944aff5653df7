//! One DNS message in, one out: what each name of the zone means.
//!
//! In: a query's bytes, how it came, and the world as it is. Out: a [`Reply`].
//! Pure. It never says that a name does not exist where something may stand
//! below it, nor that a service has no address while the registry is unread.

use std::net::IpAddr;

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode as Code,
};
use hickory_proto::rr::rdata::{HINFO, NS, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::zone::{self, LOCATOR, SETTINGS, SrvTarget, TTL};
use crate::catalog::{Addresses, Known};
use crate::model::{Class, HostPort, Target, Zone};
use crate::policy;

/// What an answer is made of.
pub struct World<'a> {
    /// The zone we answer for.
    pub zone: &'a Zone,
    /// The live balancers; `None` while nobody can tell where they are.
    pub balancers: Option<&'a [HostPort]>,
    /// What a name means now.
    pub lookup: &'a dyn Fn(&Target) -> Known,
    /// Whether so many endpoints may be looked at for this answer. Without, the
    /// asker is told to come by TCP.
    pub afford: &'a dyn Fn(usize) -> bool,
    /// Any number, another one for each question: where rotation begins.
    pub seed: usize,
}

/// How the query came, which bounds how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// 512 bytes, or what EDNS allows, but never more than [`UDP_MAX`].
    Udp,
    /// As large as needed.
    Tcp,
}

/// What to do about a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Send this answer.
    Answer(Vec<u8>),
    /// Send this; it answers nothing.
    Rejection(Vec<u8>),
    /// Send nothing: it was no query. Two who answer answers never stop.
    Silence,
}

/// The most that goes out in one datagram, in bytes: what IPv6 carries
/// everywhere without fragments (DNS flag day 2020), and what keeps us a poor
/// amplifier.
pub const UDP_MAX: u16 = 1232;
/// A datagram's limit where the asker does not speak EDNS (RFC 1035, 4.2.1).
const UDP_PLAIN: u16 = 512;
/// The longest query we read, in bytes. A question with its EDNS options takes
/// under 600.
pub const QUERY_MAX: usize = 4096;
/// At most so many addresses in an answer. Beyond it clients see a window that
/// moves with each question; 128 still travel in one TCP segment or three.
const ADDRESSES_MAX: usize = 128;
/// The least that an address takes in an answer, in bytes: one of IPv4.
const RECORD_MIN: usize = 16;

/// What a name in the zone is.
enum Asked {
    /// The zone itself.
    Apex,
    /// A name of the balancers, with these addresses.
    Balancers(Vec<IpAddr>),
    /// `_grpclb._tcp.NAME`.
    Locator,
    /// `_grpc_config.NAME`.
    Settings,
    /// `_tcp.NAME`: has nothing of its own, but something stands below it.
    Between,
    /// `NAME`.
    Service(Target),
    /// Neither a name nor above one.
    Nothing,
}

/// What there is to say.
enum Finding {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name exists (or something below it), but nothing of that type.
    NoData,
    /// More than may be found out for this asker now: it is to come by TCP.
    Elsewhere,
    Error(Code),
}

/// Answers a query.
#[must_use]
pub fn answer(query: &[u8], carrier: Carrier, world: &World<'_>) -> Reply {
    let Ok(header) = Header::read(&mut BinDecoder::new(query)) else { return Reply::Silence };
    if header.metadata.message_type == MessageType::Response {
        return Reply::Silence;
    }
    // The library reserves memory for as many questions as are announced.
    let readable = header.counts.queries == 1 && query.len() <= QUERY_MAX;
    let Some(message) = readable.then(|| Message::from_vec(query).ok()).flatten() else {
        let known = header.metadata.op_code == OpCode::Query;
        let code = if known { Code::FormErr } else { Code::NotImp };
        return reject(response(&header.metadata, None, code));
    };
    let mut reply = response(&message.metadata, message.edns.as_ref(), Code::NoError);
    if message.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = Code::NotImp;
        return reject(reply);
    }
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        reply.metadata.response_code = Code::BADVERS;
        return reject(reply);
    }
    let Some(question) = message.queries.first() else { return Reply::Silence };
    reply.add_query(question.clone());
    let transfers = matches!(question.query_type, RecordType::AXFR | RecordType::IXFR);
    let inner = labels_before(&question.name, world.zone);
    let (Some(inner), false, DNSClass::IN) = (inner, transfers, question.query_class) else {
        reply.metadata.response_code = Code::Refused;
        return reject(reply);
    };
    let limit = match (carrier, &message.edns) {
        (Carrier::Tcp, _) => u16::MAX,
        (Carrier::Udp, None) => UDP_PLAIN,
        (Carrier::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PLAIN, UDP_MAX),
    };
    let limit = usize::from(limit);
    fill(&mut reply, question, &inner, world, limit);
    encode(reply, limit).map_or(Reply::Silence, Reply::Answer)
}

/// An answer of ours without its records: to be asked for by TCP.
#[must_use]
pub fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(answer).ok()?;
    message.metadata.truncation = true;
    message.answers.clear();
    message.authorities.clear();
    message.additionals.clear();
    message.to_vec().ok()
}

/// A reply to this query without any content.
fn response(query: &Metadata, edns: Option<&Edns>, code: Code) -> Message {
    let mut reply = Message::response(query.id, query.op_code);
    reply.metadata = Metadata::response_from_request(query);
    reply.metadata.response_code = code;
    if let Some(asked) = edns {
        let mut edns = Edns::new();
        // Copied as RFC 3225 wants it; we sign nothing.
        edns.set_max_payload(UDP_MAX).set_dnssec_ok(asked.flags().dnssec_ok);
        reply.set_edns(edns);
    }
    reply
}

fn reject(reply: Message) -> Reply {
    encode(reply, usize::from(UDP_PLAIN)).map_or(Reply::Silence, Reply::Rejection)
}

/// The labels in front of the zone; `None` outside of it.
fn labels_before<'a>(name: &'a Name, zone: &Zone) -> Option<Vec<&'a [u8]>> {
    let mut labels: Vec<&[u8]> = name.iter().collect();
    for expected in zone.as_str().rsplit('.') {
        labels.pop().filter(|label| label.eq_ignore_ascii_case(expected.as_bytes()))?;
    }
    Some(labels)
}

fn fill(reply: &mut Message, question: &Query, inner: &[&[u8]], world: &World<'_>, limit: usize) {
    reply.metadata.authoritative = true;
    // As typed: some resolvers take only an echo of their own spelling.
    let depth = question.name.iter().len() - inner.len();
    let apex = question.name.trim_to(depth);
    // One more than fits, so that the answer says there are more.
    let most = (limit / RECORD_MIN + 1).min(ADDRESSES_MAX);
    let negative = match find(question, inner, world, most) {
        Finding::Records { answers, additionals } => {
            reply.answers = answers;
            reply.additionals = additionals;
            return;
        }
        Finding::NoData => Code::NoError,
        Finding::Elsewhere => return reply.metadata.truncation = true,
        Finding::Error(Code::NXDomain) => Code::NXDomain,
        Finding::Error(code) => {
            reply.metadata.authoritative = false;
            reply.metadata.response_code = code;
            return;
        }
    };
    reply.metadata.response_code = negative;
    reply.authorities.extend(soa(world).map(|soa| Record::from_rdata(apex, TTL, soa)));
}

fn find(question: &Query, inner: &[&[u8]], world: &World<'_>, most: usize) -> Finding {
    let targets = world.balancers.map(|balancers| zone::srv_targets(balancers, world.zone));
    let asked = asked(inner, targets.as_deref(), world.zone);
    let records = |data: Vec<RData>| records(&question.name, data);
    match (asked, question.query_type) {
        (Asked::Nothing, _) => Finding::Error(Code::NXDomain),
        // One small answer to whoever wants everything (RFC 8482).
        (_, RecordType::ANY) => {
            records(vec![RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))])
        }
        (Asked::Apex, RecordType::SOA) => records(soa(world).into_iter().collect()),
        (Asked::Apex, RecordType::NS) => {
            let names = zone::name_servers(targets.as_deref().unwrap_or(&[]), world.zone);
            records(names.iter().filter_map(|name| Some(RData::NS(NS(to_name(name)?)))).collect())
        }
        (Asked::Locator, RecordType::SRV) => match targets {
            Some(targets) => locate(&question.name, &targets, world.seed),
            None => Finding::Error(Code::ServFail),
        },
        (Asked::Settings, RecordType::TXT) => {
            records(vec![RData::TXT(TXT::new(vec![zone::SERVICE_CONFIG.to_owned()]))])
        }
        (Asked::Balancers(_), RecordType::A | RecordType::AAAA) if targets.is_none() => {
            Finding::Error(Code::ServFail)
        }
        (Asked::Balancers(all), kind @ (RecordType::A | RecordType::AAAA)) => {
            records(addresses(&all, kind, world.seed))
        }
        (Asked::Service(target), kind @ (RecordType::A | RecordType::AAAA)) => {
            match (world.lookup)(&target) {
                // Never a word from ignorance: a resolver would remember it.
                Known::Syncing => Finding::Error(Code::ServFail),
                Known::Absent(_) => Finding::NoData,
                Known::Present(service) => {
                    let class = Class::new(target.selectors_for(&service.name));
                    if !(world.afford)(policy::address_work(&service, &class)) {
                        return Finding::Elsewhere;
                    }
                    let all = policy::addresses(&service, &class);
                    records(window(&all, kind, world.seed, most))
                }
            }
        }
        _ => Finding::NoData,
    }
}

/// Which part of the zone a name is.
///
/// Every valid service name exists, registered or not, because
/// `_grpclb._tcp.NAME` exists for it: a waiting client finds its balancer
/// before its first server starts. So NAME and `_tcp.NAME` are at least empty
/// non-terminals and must never be answered NXDOMAIN, or resolvers that take
/// it as "nothing below either" (RFC 8020), and those that ask label by label
/// (RFC 9156), would never get to the SRV record. NXDOMAIN is left for what is
/// no service's name and has none below: a label that begins with an underscore
/// and is not one of ours, and characters that no name may have.
fn asked(inner: &[&[u8]], targets: Option<&[SrvTarget]>, zone: &Zone) -> Asked {
    let same = |label: &[u8], text: &str| label.eq_ignore_ascii_case(text.as_bytes());
    let if_service = |name: &[&[u8]], asked| match service(name, zone) {
        Some(_) => asked,
        None => Asked::Nothing,
    };
    match inner {
        [] => Asked::Apex,
        [first, second, name @ ..] if same(first, LOCATOR[0]) && same(second, LOCATOR[1]) => {
            if_service(name, Asked::Locator)
        }
        [first, name @ ..] if same(first, LOCATOR[1]) => if_service(name, Asked::Between),
        [first, name @ ..] if same(first, SETTINGS) => if_service(name, Asked::Settings),
        name => match balancers(name, targets.unwrap_or(&[]), zone) {
            Some(addresses) => Asked::Balancers(addresses),
            None => service(name, zone).map_or(Asked::Nothing, Asked::Service),
        },
    }
}

/// The addresses behind a name of the balancers; `None` for other names.
fn balancers(name: &[&[u8]], targets: &[SrvTarget], zone: &Zone) -> Option<Vec<IpAddr>> {
    let [label] = name else { return None };
    let text = format!("{}.{zone}", std::str::from_utf8(label).ok()?).to_ascii_lowercase();
    if text == zone::balancer_name(zone) {
        return Some(targets.iter().flat_map(|target| target.addresses.clone()).collect());
    }
    let ours = |target: &&SrvTarget| target.name == text && !target.addresses.is_empty();
    targets.iter().find(ours).map(|target| target.addresses.clone())
}

/// The service that a name below the zone may mean.
fn service(name: &[&[u8]], zone: &Zone) -> Option<Target> {
    let mut text = String::new();
    for label in name {
        let label = std::str::from_utf8(label).ok()?;
        if label.starts_with('_') || label.contains('.') {
            return None;
        }
        text.push_str(label);
        text.push('.');
    }
    text.push_str(zone.as_str());
    Target::parse(&text, zone).ok()
}

/// The SRV records, and in addition the addresses of their targets, rotated.
fn locate(name: &Name, targets: &[SrvTarget], seed: usize) -> Finding {
    let srv =
        |target: &SrvTarget| Some(RData::SRV(SRV::new(0, 0, target.port, to_name(&target.name)?)));
    let mut additionals = Vec::new();
    for target in targets {
        let Some(name) = to_name(&target.name) else { continue };
        for kind in [RecordType::A, RecordType::AAAA] {
            let data = addresses(&target.addresses, kind, seed);
            additionals.extend(data.into_iter().map(|d| Record::from_rdata(name.clone(), TTL, d)));
        }
    }
    match records(name, targets.iter().filter_map(srv).collect()) {
        Finding::Records { answers, .. } => Finding::Records { answers, additionals },
        other => other,
    }
}

/// The same of a few addresses, which need not be sorted.
fn addresses(all: &[IpAddr], kind: RecordType, seed: usize) -> Vec<RData> {
    let mut sets = Addresses::default();
    for ip in all {
        match ip {
            IpAddr::V4(ip) => sets.v4.push(*ip),
            IpAddr::V6(ip) => sets.v6.push(*ip),
        }
    }
    window(&sets.sorted(), kind, seed, ADDRESSES_MAX)
}

/// Those of one family, rotated, at most so many.
fn window(all: &Addresses, kind: RecordType, seed: usize, most: usize) -> Vec<RData> {
    if kind == RecordType::A {
        rotated(&all.v4, seed).take(most).map(|&ip| RData::A(ip.into())).collect()
    } else {
        rotated(&all.v6, seed).take(most).map(|&ip| RData::AAAA(ip.into())).collect()
    }
}

fn rotated<T>(all: &[T], seed: usize) -> impl Iterator<Item = &T> {
    let (front, back) = all.split_at(seed % all.len().max(1));
    back.iter().chain(front)
}

fn records(name: &Name, data: Vec<RData>) -> Finding {
    if data.is_empty() {
        return Finding::NoData;
    }
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let answers = data.into_iter().map(record).collect();
    Finding::Records { answers, additionals: Vec::new() }
}

/// Its serial never changes, for nobody transfers this zone; its last field is
/// how long "there is nothing" may be remembered (RFC 2308).
fn soa(world: &World<'_>) -> Option<RData> {
    let targets = zone::srv_targets(world.balancers.unwrap_or(&[]), world.zone);
    let primary = to_name(zone::name_servers(&targets, world.zone).first()?)?;
    let contact = to_name(&format!("hostmaster.{}", world.zone))?;
    Some(RData::SOA(SOA::new(primary, contact, 1, 3600, 600, 86_400, TTL)))
}

/// As it stands: no label is translated.
fn to_name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// Leaves out what does not fit: first what nobody asked for, which is no
/// truncation (RFC 2181, 9), then answers, so that the asker comes by TCP.
fn encode(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    /// The least that goes with an address of IPv6, in bytes.
    const RECORD: usize = 28;
    let mut bytes = reply.to_vec().ok()?;
    if bytes.len() > limit {
        reply.additionals.clear();
        bytes = reply.to_vec().ok()?;
    }
    while bytes.len() > limit {
        reply.metadata.truncation = true;
        let excess = (bytes.len() - limit).div_ceil(RECORD);
        let sections = [&mut reply.answers, &mut reply.authorities];
        let section = sections.into_iter().find(|section| !section.is_empty())?;
        section.truncate(section.len().saturating_sub(excess));
        bytes = reply.to_vec().ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
