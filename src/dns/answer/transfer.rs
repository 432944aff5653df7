//! The whole zone in messages, for DNS servers that keep a copy of it (secondaries).
//!
//! In: the services with their addresses, the balancers, and a serial number. Out: whether a
//! query asks for the zone (AXFR, RFC 5936; IXFR, RFC 1995), the messages that answer it, and
//! the notice that the zone has changed (NOTIFY, RFC 1996). Pure.
//! A copy cannot answer for every name that a client may ask, as this server does: names that
//! nobody registered are covered by a wildcard, as far as wildcards reach.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode as Code};
use hickory_proto::rr::rdata::{NS, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::super::zone::{self, LOCATOR, SETTINGS, SrvTarget, TTL};
use super::response;
use crate::dns::named_services::Named;
use crate::model::Zone;

/// What a secondary gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The balancers.
    pub targets: Vec<SrvTarget>,
    /// The services.
    pub services: Named,
}

/// A version of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneCopy {
    /// Higher than that of each earlier version.
    pub serial: u32,
    /// What is in it.
    pub content: Content,
}

/// A query for the whole zone.
#[derive(Debug, Clone)]
pub struct Asked {
    query: Message,
    /// The serial number that the asker has, if it says so.
    has: Option<u32>,
}

/// The most addresses of one service. It is as many as one answer to a client has.
const ADDRESSES_MAX: usize = 128;
/// The records of one message: with the longest names they still fit into its 64 KiB.
const RECORDS: usize = 100;
/// The serial number while no copy may be had: lower than that of any copy.
pub const SERIAL_NONE: u32 = 1;
/// When secondaries ask for the serial number and again after no answer, and for how long
/// they answer without any balancer, in seconds. They are told of changes, so they ask in
/// vain; clients find backends without balancers for a week.
const REFRESH: i32 = 300;
const RETRY: i32 = 60;
const EXPIRE: i32 = 604_800;

/// Returns the zone's SOA record. Its last field is how long a negative answer may be
/// remembered (RFC 2308).
pub(in crate::dns) fn soa(targets: &[SrvTarget], zone: &Zone, serial: u32) -> Option<RData> {
    let primary = to_name(zone::name_servers(targets, zone).first()?)?;
    let contact = to_name(&format!("hostmaster.{zone}"))?;
    Some(RData::SOA(SOA::new(primary, contact, serial, REFRESH, RETRY, EXPIRE, TTL)))
}

/// Makes a name of a text as it stands, without IDNA translation.
pub(in crate::dns) fn to_name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// Returns what a query asks, if it asks for the whole zone.
#[must_use]
pub fn asked(query: &[u8], zone: &Zone) -> Option<Asked> {
    let query = Message::from_vec(query).ok()?;
    let [question] = &query.queries[..] else { return None };
    let wanted = matches!(question.query_type, RecordType::AXFR | RecordType::IXFR)
        && question.query_class == DNSClass::IN
        && query.metadata.message_type == MessageType::Query
        && query.metadata.op_code == OpCode::Query
        && question.name == to_name(zone.as_str())?;
    let known = |record: &Record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    };
    let has = match question.query_type {
        RecordType::IXFR => query.authorities.iter().find_map(known),
        _ => None,
    };
    wanted.then_some(Asked { query, has })
}

/// Returns the messages of the whole zone; of an asker that has it, the SOA record alone.
#[must_use]
pub fn messages(asked: &Asked, copy: &ZoneCopy, zone: &Zone) -> Vec<Vec<u8>> {
    let records = match asked.has {
        Some(has) if has == copy.serial => copy.soa(zone).into_iter().collect(),
        _ => copy.records(zone),
    };
    let message = |records: &[Record]| {
        let mut message = response(&asked.query.metadata, asked.query.edns.as_ref(), Code::NoError);
        message.metadata.authoritative = true;
        message.add_queries(asked.query.queries.clone());
        message.answers = records.to_vec();
        message.to_vec().ok()
    };
    records.chunks(RECORDS).filter_map(message).collect()
}

/// Returns the notice that the zone has changed.
#[must_use]
pub fn notice(id: u16, copy: &ZoneCopy, zone: &Zone) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Notify);
    message.metadata.authoritative = true;
    message.add_query(Query::query(to_name(zone.as_str())?, RecordType::SOA));
    message.answers.extend(copy.soa(zone));
    message.to_vec().ok()
}

/// Returns whether a message acknowledges the notice with this number.
#[must_use]
pub fn acknowledges(message: &[u8], id: u16) -> bool {
    Message::from_vec(message).is_ok_and(|message| {
        let head = &message.metadata;
        head.id == id
            && head.message_type == MessageType::Response
            && head.op_code == OpCode::Notify
            && head.response_code == Code::NoError
    })
}

impl ZoneCopy {
    fn soa(&self, zone: &Zone) -> Option<Record> {
        let soa = soa(&self.content.targets, zone, self.serial)?;
        Some(Record::from_rdata(to_name(zone.as_str())?, TTL, soa))
    }

    /// Returns all records: the SOA record first and last.
    fn records(&self, zone: &Zone) -> Vec<Record> {
        let Some(soa) = self.soa(zone) else { return Vec::new() };
        let mut all = vec![soa.clone()];
        let mut add = |name: &str, data: Vec<RData>| {
            let Some(name) = to_name(name) else { return };
            all.extend(data.into_iter().map(|one| Record::from_rdata(name.clone(), TTL, one)));
        };
        let Content { targets, services } = &self.content;
        let servers = zone::name_servers(targets, zone);
        let servers = servers.iter().filter_map(|name| Some(RData::NS(NS(to_name(name)?))));
        add(zone.as_str(), servers.collect());
        // Some names have the addresses of all balancers, others those with one port.
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for target in targets.iter().filter(|target| !target.addresses.is_empty()) {
            for name in [&target.name, &zone::balancer_name(zone)] {
                let known = hosts.entry(name.clone()).or_default();
                known.extend(
                    target
                        .addresses
                        .iter()
                        .filter(|one| !known.contains(one))
                        .copied()
                        .collect::<Vec<_>>(),
                );
            }
        }
        for (name, addresses) in &hosts {
            add(name, addresses.iter().map(|ip| data(*ip)).collect());
        }
        let srv = |target: &SrvTarget| {
            Some(RData::SRV(SRV::new(0, 0, target.port, to_name(&target.name)?)))
        };
        let located: Vec<_> = targets.iter().filter_map(srv).collect();
        let settings = vec![RData::TXT(TXT::new(vec![zone::SERVICE_CONFIG.to_owned()]))];
        let any = format!("*.{zone}");
        add(&any, [located.clone(), settings.clone()].concat());
        for (name, addresses) in services {
            let name = format!("{name}.{zone}");
            add(&format!("{}.{name}", LOCATOR.join(".")), located.clone());
            add(&format!("{SETTINGS}.{name}"), settings.clone());
            let v4 = addresses.v4.iter().map(|ip| IpAddr::V4(*ip)).take(ADDRESSES_MAX);
            let v6 = addresses.v6.iter().map(|ip| IpAddr::V6(*ip)).take(ADDRESSES_MAX);
            add(&name, v4.chain(v6).map(data).collect());
        }
        all.push(soa);
        all
    }
}

fn data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::Addresses;
    use crate::model::HostPort;

    fn zone() -> Zone {
        Zone::new("z").unwrap()
    }

    fn copy(services: usize) -> ZoneCopy {
        let balancers = ["10.0.0.1:1", "[2001:db8::1]:1"].map(|one| HostPort::parse(one).unwrap());
        let addresses = Addresses { v4: vec![[10, 0, 0, 9].into()], v6: vec![] };
        let addresses = Arc::new(addresses);
        let service = |n: usize| (format!("s{n:04}"), addresses.clone());
        let targets = zone::srv_targets(&balancers, &zone());
        let content = Content { targets, services: (0..services).map(service).collect() };
        ZoneCopy { serial: 7, content }
    }

    fn query(name: &str, kind: RecordType, has: Option<u32>) -> Vec<u8> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let soa = |serial| soa(&[], &zone(), serial).unwrap();
        let name = || Name::from_ascii("z.").unwrap();
        query.authorities.extend(has.map(|has| Record::from_rdata(name(), 0, soa(has))));
        query.to_vec().unwrap()
    }

    fn lines(query: &[u8], copy: &ZoneCopy) -> Vec<String> {
        let asked = asked(query, &zone()).expect("it asks for the zone");
        let messages = messages(&asked, copy, &zone());
        let read = |bytes: &Vec<u8>| Message::from_vec(bytes).unwrap().answers;
        let line = |record: &Record| {
            let data = record.data.to_string();
            format!("{} {} {}", record.name, record.record_type(), data)
        };
        messages.iter().flat_map(read).map(|record| line(&record)).collect()
    }

    #[test]
    fn a_copy_has_the_balancers_and_each_service() {
        let lines = lines(&query("Z.", RecordType::AXFR, None), &copy(1));
        let soa = "z. SOA grpclb.z. hostmaster.z. 7 300 60 604800 5";
        assert_eq!((lines[0].as_str(), lines.last().unwrap().as_str()), (soa, soa));
        for expected in [
            "z. NS grpclb.z.",
            "grpclb.z. A 10.0.0.1",
            "grpclb.z. AAAA 2001:db8::1",
            "*.z. SRV 0 0 1 grpclb.z.",
            "_grpclb._tcp.s0000.z. SRV 0 0 1 grpclb.z.",
            "s0000.z. A 10.0.0.9",
        ] {
            assert_eq!(lines.iter().filter(|line| *line == expected).count(), 1, "{lines:#?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("_grpc_config.s0000.z. TXT grpc_config")));
        assert_eq!(lines.len(), 10);
    }

    #[test]
    fn a_large_zone_takes_several_messages_and_none_is_too_long() {
        let asked = asked(&query("z.", RecordType::AXFR, None), &zone()).unwrap();
        let messages = messages(&asked, &copy(1_000), &zone());
        assert_eq!(messages.len(), 31);
        assert!(messages.iter().all(|message| message.len() < 1 << 16));
    }

    #[test]
    fn who_has_the_newest_copy_gets_no_other() {
        let newest = lines(&query("z.", RecordType::IXFR, Some(7)), &copy(1));
        assert_eq!(newest.len(), 1);
        for has in [Some(6), Some(8), None] {
            assert_eq!(lines(&query("z.", RecordType::IXFR, has), &copy(1)).len(), 10);
        }
    }

    #[test]
    fn nothing_else_asks_for_the_zone() {
        for (name, kind) in
            [("z.", RecordType::SOA), ("y.", RecordType::AXFR), ("a.z.", RecordType::AXFR)]
        {
            assert!(asked(&query(name, kind, None), &zone()).is_none(), "{name} {kind}");
        }
        assert!(asked(b"nonsense", &zone()).is_none());
    }

    #[test]
    fn a_notice_names_the_zone_and_its_answer_is_known() {
        let bytes = notice(9, &copy(0), &zone()).unwrap();
        assert!(!acknowledges(&bytes, 9));
        let notice = Message::from_vec(&bytes).unwrap();
        assert_eq!(notice.queries[0].to_string(), "z. IN SOA");
        let mut answer = Message::response(9, OpCode::Notify);
        assert!(acknowledges(&answer.to_vec().unwrap(), 9));
        assert!(!acknowledges(&answer.to_vec().unwrap(), 8));
        answer.metadata.response_code = Code::Refused;
        assert!(!acknowledges(&answer.to_vec().unwrap(), 9));
    }
}
