//! A world of a few services, and helpers that show answers as text.

use std::sync::Arc;

use super::*;
use crate::catalog::{Service, ServiceSnapshot};
use crate::model::{BackendAddr, Endpoint, Meta, ServiceName, Weight, name};

mod messages;
mod names;
mod properties;

const ONE_PORT: &[&str] = &["10.9.0.1:12000", "10.9.0.2:12000", "[2001:db8::9]:12000"];
const SOA_TEXT: &str = "lookaside.internal. SOA grpclb.lookaside.internal. \
                        hostmaster.lookaside.internal. 7 300 60 604800 5";

/// Service, backend's id, address, weight.
const INSTANCES: &[(&str, &str, &str, u32)] = &[
    ("hello", "a", "10.0.0.1", 1),
    ("hello", "b", "10.0.0.2", 1),
    ("hello", "c", "10.0.0.2", 1),
    ("hello", "d", "10.0.0.3", 0),
    ("dev/game", "7", "10.0.1.7", 1),
    ("dev/game", "8", "2001:db8::8", 1),
    ("drained", "a", "10.0.0.1", 0),
    ("my_service", "a", "10.0.0.4", 1),
];

struct Fixture {
    zone: Zone,
    balancers: Option<Vec<HostPort>>,
    synced: bool,
    seed: usize,
    services: Vec<Arc<Service>>,
    /// Of every name, registered or not.
    settings: ServiceSettings,
}

fn fixture(balancers: Option<&[&str]>) -> Fixture {
    let parse = |all: &[&str]| all.iter().map(|one| HostPort::parse(one).unwrap()).collect();
    let mut services = Vec::new();
    for service in ["hello", "dev/game", "drained", "my_service"] {
        let of = |instance: &&(&str, &str, &str, u32)| instance.0 == service;
        let endpoint = |(port, instance): (u16, &(&str, &str, &str, u32))| Endpoint {
            id: instance.1.into(),
            addr: BackendAddr::new(instance.2.parse().unwrap(), port).unwrap(),
            weight: Weight(instance.3),
            meta: Arc::new(Meta::new()),
        };
        let endpoints = (1..).zip(INSTANCES.iter().filter(of)).map(endpoint).collect();
        services.push(snapshot(service, endpoints));
    }
    Fixture {
        zone: Zone::new("lookaside.internal").unwrap(),
        balancers: balancers.map(parse),
        synced: true,
        seed: 0,
        services,
        settings: ServiceSettings::DEFAULT,
    }
}

fn snapshot(service: &str, endpoints: Vec<Endpoint>) -> Arc<Service> {
    let name = ServiceName::new(service).unwrap();
    Arc::new(Service::new(1, ServiceSnapshot::new(name, 1, endpoints), ServiceSettings::DEFAULT))
}

/// Adds a service `big` with `size` addresses of each family.
fn crowd(fixture: &mut Fixture, size: u8) {
    let both = |i| {
        [IpAddr::from([10, 1, 0, i]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(i)])]
    };
    let endpoint = |ip| Endpoint {
        id: "x".into(),
        addr: BackendAddr::new(ip, 80).unwrap(),
        weight: Weight(1),
        meta: Arc::default(),
    };
    let endpoints = (0..size).flat_map(both).map(endpoint).collect();
    fixture.services.push(snapshot("big", endpoints));
}

impl Fixture {
    fn known(&self, target: &Target) -> Known {
        let named = |s: &&Arc<Service>| {
            let longer = target.longer().iter().map(|one| &one.name);
            longer.chain([&target.name]).any(|typed| name::matches(typed, &s.name).is_some())
        };
        match self.services.iter().find(named) {
            _ if !self.synced => Known::Syncing,
            Some(service) => {
                let mut service = (**service).clone();
                service.settings = Arc::new(self.settings.clone());
                Known::Present(Arc::new(service))
            }
            None => Known::Absent(Arc::new(self.settings.clone())),
        }
    }

    fn answer(&self, query: &[u8], transport: Transport) -> Reply {
        let facts = Facts {
            zone: &self.zone,
            balancers: self.balancers.as_deref(),
            asker: [192, 0, 2, 1].into(),
            denied: &|_| {},
            lookup: &|target| self.known(target),
            may_visit: &|_| true,
            serial: 7,
            seed: self.seed,
        };
        answer(query, transport, &facts)
    }

    fn ask(&self, name: &str, kind: &str) -> String {
        show(&self.answer(&query(name, kind).to_vec().unwrap(), Transport::Tcp))
    }

    #[track_caller]
    fn check(&self, name: &str, kind: &str, expected: &[&str]) {
        let expected = expected.join("\n").replace("SOA!", SOA_TEXT);
        assert_eq!(self.ask(name, kind), expected, "{name} {kind}");
    }
}

fn query(name: &str, kind: &str) -> Message {
    let name = Name::from_labels(name.split('.').filter(|l| !l.is_empty()).map(str::as_bytes));
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.unwrap(), kind.parse().unwrap()));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn parsed(reply: &Reply) -> Message {
    let (Reply::Answer(bytes) | Reply::Rejection(bytes)) = reply else { panic!("silence") };
    Message::from_vec(bytes).unwrap()
}

/// Shows a reply as `CODE flags` and one line per record; later sections are marked.
fn show(reply: &Reply) -> String {
    let message = parsed(reply);
    let meta = &message.metadata;
    assert_eq!(
        (meta.id, meta.message_type, meta.recursion_available),
        (7, MessageType::Response, false)
    );
    let mut head = format!("{:?}", meta.response_code);
    for (set, flag) in [(meta.authoritative, " aa"), (meta.truncation, " tc")] {
        head.push_str(if set { flag } else { "" });
    }
    let mut lines = vec![head];
    let sections = [
        ("", &message.answers),
        ("authority ", &message.authorities),
        ("additional ", &message.additionals),
    ];
    for (mark, records) in sections {
        for record in records {
            assert_eq!((record.ttl, record.dns_class), (TTL, DNSClass::IN));
            lines.push(format!("{mark}{} {} {}", record.name, record.record_type(), record.data));
        }
    }
    lines.join("\n")
}

/// A name that is registered and one that is not get the same answer, and every name the
/// balancers.
#[test]
fn addresses_are_for_askers_that_the_rules_name() {
    let mut fixture = fixture(Some(ONE_PORT));
    for (clients, allowed) in [
        ("all", true),
        ("192.0.2.0/24", true),
        ("nobody", false),
        ("10.0.0.0/8, spiffe://prod/web", false),
    ] {
        fixture.settings.clients = crate::settings::Clients::parse(clients).unwrap();
        let none = fixture.ask("unknown.lookaside.internal", "A");
        let none = none.replace("unknown", "hello");
        let found = fixture.ask("hello.lookaside.internal", "A");
        assert_eq!(found.contains("10.0.0.1"), allowed, "{clients}: {found}");
        assert_eq!(found == none, !allowed, "{clients}: {found}");
        let balancers = fixture.ask("_grpclb._tcp.hello.lookaside.internal", "SRV");
        assert!(balancers.contains("12000"), "{clients}: {balancers}");
    }
}
