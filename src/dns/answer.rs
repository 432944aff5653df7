//! Answers one DNS message: gives each name of the zone its meaning.
//!
//! In: a query's bytes, its transport, and the world as it is. Out: a [`Reply`].
//! Pure. It never answers NXDOMAIN for a name below which another name may exist, and
//! never says that a service has no address before the registry has been read.

use std::net::IpAddr;

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode as Code,
};
use hickory_proto::rr::rdata::{HINFO, NS, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::zone::{self, LOCATOR, SETTINGS, SrvTarget, TTL};
use crate::catalog::Known;
use crate::model::{HostPort, Target, Zone};
use crate::policy;
use crate::settings::ServiceSettings;
use transfer::to_name;
use window::{ADDRESSES_MAX, addresses, window};

pub mod transfer;
mod window;

/// All that an answer is made from.
pub struct Facts<'a> {
    /// The zone of this server.
    pub zone: &'a Zone,
    /// The live balancers, in the order of the answer; `None` while they are not known.
    pub balancers: Option<&'a [HostPort]>,
    /// The address that asks.
    pub asker: IpAddr,
    /// Is told of each question for a service that the asker may not ask for.
    pub denied: &'a dyn Fn(&Target),
    /// Returns what a name means now.
    pub lookup: &'a dyn Fn(&Target) -> Known,
    /// Returns whether this many endpoints may be looked at for this answer. If not,
    /// the answer is truncated, so that the asker comes back by TCP.
    pub may_visit: &'a dyn Fn(usize) -> bool,
    /// The zone's serial number.
    pub serial: u32,
    /// Any number, a different one for each question. It decides where rotation begins.
    pub seed: usize,
}

/// The transport of the query, which limits the length of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// At most 512 bytes, or as many as EDNS allows up to [`UDP_MAX`].
    Udp,
    /// As long as needed.
    Tcp,
}

/// The reply to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Send this answer.
    Answer(Vec<u8>),
    /// Send this rejection, which answers nothing.
    Rejection(Vec<u8>),
    /// Send nothing, because the message was no query. Two servers that answer each
    /// other's answers would never stop.
    Silence,
}

/// The longest answer in one datagram, in bytes. IPv6 carries that much everywhere
/// without fragments (DNS flag day 2020), and it keeps this server a poor amplifier.
pub const UDP_MAX: u16 = 1232;
/// The longest answer in a datagram if the asker does not use EDNS (RFC 1035, 4.2.1).
const UDP_PLAIN: u16 = 512;
/// The longest query that is read, in bytes. A question with EDNS takes under 600.
pub const QUERY_MAX: usize = 4096;
/// The fewest bytes that an address takes in an answer: an IPv4 address.
const RECORD_MIN: usize = 16;

/// The meaning of a name in the zone.
enum ZoneName {
    /// The zone itself.
    Apex,
    /// A name of the balancers, with these addresses.
    Balancers(Vec<IpAddr>),
    /// `_grpclb._tcp.NAME`.
    Locator,
    /// `_grpc_config.NAME`.
    Settings,
    /// `_tcp.NAME`: has no records, but names below it may.
    Between,
    /// `NAME`.
    Service(Target),
    /// No valid name, and no name can exist below it.
    Nothing,
}

/// The result of looking up a question.
enum Outcome {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name exists, or a name below it, but it has no records of the type.
    NoData,
    /// The answer costs more work than this asker may cause now: it must come by TCP.
    RetryByTcp,
    Error(Code),
}

/// Answers a query. Returns [`Reply::Silence`] for messages that are no queries.
#[must_use]
pub fn answer(query: &[u8], transport: Transport, facts: &Facts<'_>) -> Reply {
    let Ok(header) = Header::read(&mut BinDecoder::new(query)) else { return Reply::Silence };
    if header.metadata.message_type == MessageType::Response {
        return Reply::Silence;
    }
    // The library would reserve memory for as many questions as the header announces.
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
    let inner = labels_before(&question.name, facts.zone);
    let (Some(inner), false, DNSClass::IN) = (inner, transfers, question.query_class) else {
        reply.metadata.response_code = Code::Refused;
        return reject(reply);
    };
    let limit = match (transport, &message.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_PLAIN,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PLAIN, UDP_MAX),
    };
    let limit = usize::from(limit);
    fill(&mut reply, question, &inner, facts, limit);
    encode(reply, limit).map_or(Reply::Silence, Reply::Answer)
}

/// Returns an answer of this server with no records and the truncation bit set, so that
/// the asker comes by TCP. `None` if the answer cannot be read.
#[must_use]
pub fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(answer).ok()?;
    message.metadata.truncation = true;
    message.answers.clear();
    message.authorities.clear();
    message.additionals.clear();
    message.to_vec().ok()
}

/// Returns a reply to this query without any records.
fn response(query: &Metadata, edns: Option<&Edns>, code: Code) -> Message {
    let mut reply = Message::response(query.id, query.op_code);
    reply.metadata = Metadata::response_from_request(query);
    reply.metadata.response_code = code;
    if let Some(asked) = edns {
        let mut edns = Edns::new();
        // RFC 3225 wants the DO bit copied; this zone is not signed.
        edns.set_max_payload(UDP_MAX).set_dnssec_ok(asked.flags().dnssec_ok);
        reply.set_edns(edns);
    }
    reply
}

fn reject(reply: Message) -> Reply {
    encode(reply, usize::from(UDP_PLAIN)).map_or(Reply::Silence, Reply::Rejection)
}

/// Returns the labels before the zone; `None` for a name outside the zone.
fn labels_before<'a>(name: &'a Name, zone: &Zone) -> Option<Vec<&'a [u8]>> {
    let mut labels: Vec<&[u8]> = name.iter().collect();
    for expected in zone.as_str().rsplit('.') {
        labels.pop().filter(|label| label.eq_ignore_ascii_case(expected.as_bytes()))?;
    }
    Some(labels)
}

fn fill(reply: &mut Message, question: &Query, inner: &[&[u8]], facts: &Facts<'_>, limit: usize) {
    reply.metadata.authoritative = true;
    // Spelled as asked: some resolvers accept only their own spelling.
    let depth = question.name.iter().len() - inner.len();
    let apex = question.name.trim_to(depth);
    // One more than fits, so that the answer is marked as truncated.
    let most = (limit / RECORD_MIN + 1).min(ADDRESSES_MAX);
    let negative = match find(question, inner, facts, most) {
        Outcome::Records { answers, additionals } => {
            reply.answers = answers;
            reply.additionals = additionals;
            return;
        }
        Outcome::NoData => Code::NoError,
        Outcome::RetryByTcp => return reply.metadata.truncation = true,
        Outcome::Error(Code::NXDomain) => Code::NXDomain,
        Outcome::Error(code) => {
            reply.metadata.authoritative = false;
            reply.metadata.response_code = code;
            return;
        }
    };
    reply.metadata.response_code = negative;
    reply.authorities.extend(soa(facts).map(|soa| Record::from_rdata(apex, TTL, soa)));
}

fn find(question: &Query, inner: &[&[u8]], facts: &Facts<'_>, most: usize) -> Outcome {
    let targets = facts.balancers.map(|balancers| zone::srv_targets(balancers, facts.zone));
    let asked = zone_name(inner, targets.as_deref(), facts.zone);
    let records = |data: Vec<RData>| records(&question.name, data);
    match (asked, question.query_type) {
        (ZoneName::Nothing, _) => Outcome::Error(Code::NXDomain),
        // ANY gets one small answer (RFC 8482).
        (_, RecordType::ANY) => {
            records(vec![RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))])
        }
        (ZoneName::Apex, RecordType::SOA) => records(soa(facts).into_iter().collect()),
        (ZoneName::Apex, RecordType::NS) => {
            let names = zone::name_servers(targets.as_deref().unwrap_or(&[]), facts.zone);
            records(names.iter().filter_map(|name| Some(RData::NS(NS(to_name(name)?)))).collect())
        }
        (ZoneName::Locator, RecordType::SRV) => match targets {
            Some(targets) => locate(&question.name, &targets),
            None => Outcome::Error(Code::ServFail),
        },
        (ZoneName::Settings, RecordType::TXT) => {
            records(vec![RData::TXT(TXT::new(vec![zone::SERVICE_CONFIG.to_owned()]))])
        }
        (ZoneName::Balancers(_), RecordType::A | RecordType::AAAA) if targets.is_none() => {
            Outcome::Error(Code::ServFail)
        }
        (ZoneName::Balancers(all), kind @ (RecordType::A | RecordType::AAAA)) => {
            records(addresses(&all, kind))
        }
        (ZoneName::Service(target), kind @ (RecordType::A | RecordType::AAAA)) => {
            let known = (facts.lookup)(&target);
            let may_ask =
                |settings: &ServiceSettings| settings.clients.may_address_ask(facts.asker);
            match known {
                known if known.settings().is_some_and(|settings| !may_ask(settings)) => {
                    (facts.denied)(&target);
                    Outcome::NoData
                }
                // The registry is unread: a resolver would remember "no data".
                Known::Syncing => Outcome::Error(Code::ServFail),
                Known::Absent(_) => Outcome::NoData,
                Known::Present(service) => {
                    // Mostly a resolver asks, for many clients, so its address says nothing.
                    let class = policy::class(&service, &target, None);
                    if !(facts.may_visit)(policy::address_work(&service, &class)) {
                        return Outcome::RetryByTcp;
                    }
                    let all = policy::addresses(&service, &class);
                    records(window(&all, kind, facts.seed, most))
                }
            }
        }
        _ => Outcome::NoData,
    }
}

/// Returns which part of the zone a name is.
///
/// Every valid service name exists, registered or not, because `_grpclb._tcp.NAME`
/// exists for it: a waiting client finds its balancer before its first backend starts.
/// So NAME and `_tcp.NAME` are at least empty non-terminals and must never be answered
/// NXDOMAIN. Otherwise resolvers that take NXDOMAIN as "nothing below either" (RFC
/// 8020), and resolvers that ask label by label (RFC 9156), would never get to the SRV
/// record. NXDOMAIN remains for a name that is no service's and can have none below it:
/// one with a label that begins with an underscore and has no meaning here, or with
/// characters that no name may have.
fn zone_name(inner: &[&[u8]], targets: Option<&[SrvTarget]>, zone: &Zone) -> ZoneName {
    let same = |label: &[u8], text: &str| label.eq_ignore_ascii_case(text.as_bytes());
    let if_service = |name: &[&[u8]], asked| match service(name, zone) {
        // Clients of xDS find the balancers by these names, and must not find grpclb there.
        Some(_) if matches!(name, [one] if zone::is_balancer_label(one)) => ZoneName::Between,
        Some(_) => asked,
        None => ZoneName::Nothing,
    };
    match inner {
        [] => ZoneName::Apex,
        [first, second, name @ ..] if same(first, LOCATOR[0]) && same(second, LOCATOR[1]) => {
            if_service(name, ZoneName::Locator)
        }
        [first, name @ ..] if same(first, LOCATOR[1]) => if_service(name, ZoneName::Between),
        [first, name @ ..] if same(first, SETTINGS) => if_service(name, ZoneName::Settings),
        name => match balancers(name, targets.unwrap_or(&[]), zone) {
            Some(addresses) => ZoneName::Balancers(addresses),
            None => service(name, zone).map_or(ZoneName::Nothing, ZoneName::Service),
        },
    }
}

/// Returns the addresses behind a name of the balancers; `None` for other names.
fn balancers(name: &[&[u8]], targets: &[SrvTarget], zone: &Zone) -> Option<Vec<IpAddr>> {
    let [label] = name else { return None };
    let text = format!("{}.{zone}", std::str::from_utf8(label).ok()?).to_ascii_lowercase();
    if text == zone::balancer_name(zone) {
        return Some(targets.iter().flat_map(|target| target.addresses.clone()).collect());
    }
    let ours = |target: &&SrvTarget| target.name == text && !target.addresses.is_empty();
    targets.iter().find(ours).map(|target| target.addresses.clone())
}

/// Returns the service that a name below the zone may mean.
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

/// Returns the SRV records, and the addresses of their targets as additionals.
fn locate(name: &Name, targets: &[SrvTarget]) -> Outcome {
    let srv =
        |target: &SrvTarget| Some(RData::SRV(SRV::new(0, 0, target.port, to_name(&target.name)?)));
    let mut additionals = Vec::new();
    for target in targets {
        let Some(name) = to_name(&target.name) else { continue };
        for kind in [RecordType::A, RecordType::AAAA] {
            let data = addresses(&target.addresses, kind);
            additionals.extend(data.into_iter().map(|d| Record::from_rdata(name.clone(), TTL, d)));
        }
    }
    match records(name, targets.iter().filter_map(srv).collect()) {
        Outcome::Records { answers, .. } => Outcome::Records { answers, additionals },
        other => other,
    }
}

fn records(name: &Name, data: Vec<RData>) -> Outcome {
    if data.is_empty() {
        return Outcome::NoData;
    }
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let answers = data.into_iter().map(record).collect();
    Outcome::Records { answers, additionals: Vec::new() }
}

fn soa(facts: &Facts<'_>) -> Option<RData> {
    let targets = zone::srv_targets(facts.balancers.unwrap_or(&[]), facts.zone);
    transfer::soa(&targets, facts.zone, facts.serial)
}

/// Encodes a reply within `limit` bytes. It first leaves out the additionals, which is
/// no truncation (RFC 2181, 9), then answers, so that the asker comes by TCP.
fn encode(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    /// The fewest bytes that an IPv6 address takes in an answer.
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
