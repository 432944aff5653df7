//! The traffic policy of a run: documents of settings, what backends answer to checks, and
//! marks for clients.
//!
//! In: a seed and the plan's backends. Out: documents, and steps. Pure. Its random numbers
//! are its own, so that the rest of a plan is as without it.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::balancer::BEGAN;
use crate::plan::{BALANCERS, Backend, CLIENT_HOSTS, Client, HEAL, Host, MACHINES, SERVICES, Step};
use crate::rng::Rng;
use crate::scenes;

/// The number of the large service. Its backends have no processes: keys are all of it.
pub const FLEET: usize = SERVICES;
/// How many backends the large service has at most.
pub const FLEET_SIZE: usize = 40;
/// The fewest backends of a cell.
const CELL: usize = 8;

/// What a run is about besides faults of the registry.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// The documents that operators apply, by number.
    pub documents: Vec<Document>,
    /// Whether there is a large service.
    pub fleet: bool,
    pub layout: Layout,
    /// Whether balancers save their state, and start with it.
    pub saves: bool,
}

/// How many tenths of the large service's backends are in each of [`ZONES`]. The others are in
/// no zone that has clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout(pub [usize; CLIENT_HOSTS]);

/// The zones of the clients' hosts.
pub const ZONES: [&str; CLIENT_HOSTS] = ["a", "b"];

/// The settings of each service.
pub type Document = [Policy; SERVICES + 1];

/// The settings of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub health: Option<Health>,
    pub split: Option<Split>,
    /// The largest part that is shed by overload, in percent. Backends report their load.
    pub shed: Option<u32>,
    pub cells: bool,
    pub zones: bool,
    /// Whether new backends get their whole share at once.
    pub abrupt: bool,
    /// Whether settings that are off are written out, with their other keys.
    pub explicit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    pub kind: Kind,
    pub rise: u32,
    pub fall: u32,
    pub panic: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Grpc,
    Tcp,
    Observe,
}

/// One backend is the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    pub canary: usize,
    pub by_clients: bool,
    pub share: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Percent(u32),
    /// 20 percent from that second of the run on, and 60 percent ten seconds later.
    Ramp(u64),
}

/// What a backend does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    Serves,
    /// It says that it is not serving.
    SaysNo,
    /// It takes connections, and never answers.
    Hangs,
    /// It is registered, and nothing listens.
    Refuses,
}

/// What the operator's marks say to the clients of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// Drop that many percent of the calls.
    Shed(u32),
    /// Use the addresses from DNS.
    Fallback,
}

/// The rules that a service may have in a run. They are switched on and off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Theme {
    Plain,
    Health,
    Split,
    HealthAndSplit,
    Overload,
    /// Checks that are always on, of backends that one balancer does not reach.
    Unreached,
}

impl Policies {
    pub fn new(
        seed: u64,
        backends: &[Backend],
        clients: &mut [Client],
        steps: &mut Vec<(u64, Step)>,
    ) -> Self {
        let rng = &mut Rng::new(seed ^ 0x0009_011c);
        let saves = rng.percent(50);
        if saves && rng.percent(50) {
            scenes::starts_without_etcd(rng, backends, clients, steps);
        }
        // A quarter of the runs is about the registry alone.
        if rng.percent(25) {
            return Self { saves, ..Self::default() };
        }
        let mut themes = [(); SERVICES].map(|()| {
            use Theme::{Health, HealthAndSplit, Overload, Plain, Split};
            rng.pick(&[Plain, Plain, Health, Health, Split, HealthAndSplit, Overload])
        });
        if rng.percent(40)
            && let Some(service) = scenes::some_are_unreached(rng, backends, clients, steps)
        {
            themes[service] = Theme::Unreached;
        }
        let fleet = rng.percent(50);
        let layout = Layout(rng.pick(&[[3, 3], [5, 5], [2, 6], [6, 2], [4, 4]]));
        let mut documents = documents(rng, backends, themes, fleet);
        let last = documents.len() - 1;
        steps.push((rng.between(100, 2_000), Step::Rules(0)));
        (1..last).for_each(|one| steps.push((rng.between(4_000, HEAL - 1_000), Step::Rules(one))));
        steps.push((HEAL + 500, Step::Rules(last)));
        if fleet && seed.is_multiple_of(2) {
            scenes::zones_end_alone(&mut documents, steps);
        }
        let policies = Self { documents, fleet, layout, saves };
        for (index, backend) in backends.iter().enumerate() {
            if matches!(themes[backend.service], Theme::Health | Theme::HealthAndSplit) {
                acts(rng, index, steps);
            }
        }
        all_say_no(rng, backends, steps, themes);
        let checked = |theme: &Theme| matches!(theme, Theme::Health | Theme::HealthAndSplit);
        if themes.iter().any(checked) && rng.percent(15) {
            reach_nothing(rng, steps);
        }
        for (service, theme) in themes.iter().enumerate() {
            if *theme == Theme::Overload {
                let begins = rng.between(13_000, 18_000);
                steps.push((begins, Step::Busy(service, true)));
                steps.push((rng.between(begins + 3_000, HEAL - 6_000), Step::Busy(service, false)));
            }
            if rng.percent(25) && *theme != Theme::Unreached {
                marks(rng, service, steps);
            }
        }
        if fleet {
            scenes::churn(rng, steps);
        }
        policies
    }
}

fn documents(
    rng: &mut Rng,
    backends: &[Backend],
    themes: [Theme; SERVICES],
    fleet: bool,
) -> Vec<Document> {
    let canary = |rng: &mut Rng, service| {
        let own = (0..backends.len()).filter(|at| backends[*at].service == service);
        let own: Vec<_> = own.collect();
        own[rng.below(own.len())]
    };
    let canaries: Vec<_> = (0..SERVICES).map(|service| canary(rng, service)).collect();
    let count = rng.between(2, 4);
    let unreached = Health {
        kind: rng.pick(&[Kind::Grpc, Kind::Tcp]),
        rise: rng.pick(&[1, 2]),
        fall: 2,
        panic: 0,
    };
    let document = |_| {
        let mut document = Document::default();
        for (service, theme) in themes.into_iter().enumerate() {
            let policy = &mut document[service];
            if matches!(theme, Theme::Health | Theme::HealthAndSplit) && rng.percent(85) {
                policy.health = Some(Health {
                    kind: rng.pick(&[Kind::Grpc, Kind::Grpc, Kind::Grpc, Kind::Tcp, Kind::Observe]),
                    rise: rng.pick(&[1, 1, 2]),
                    fall: rng.pick(&[1, 2, 2, 3]),
                    panic: rng.pick(&[0, 50, 50, 50, 80]),
                });
            }
            if matches!(theme, Theme::Split | Theme::HealthAndSplit) && rng.percent(85) {
                let share = match rng.percent(30) {
                    true => Share::Ramp(rng.between(5, 40)),
                    false => Share::Percent(rng.pick(&[0, 1, 5, 25, 50, 90, 100])),
                };
                let (canary, by_clients) = (canaries[service], rng.percent(50));
                policy.split = Some(Split { canary, by_clients, share });
            }
            if theme == Theme::Unreached {
                policy.health = Some(unreached);
            }
            if theme == Theme::Overload && rng.percent(85) {
                policy.shed = Some(rng.pick(&[30, 60, 95]));
            }
        }
        let modes = [(true, false), (true, false), (false, true), (false, true), (false, false)];
        if fleet {
            (document[FLEET].cells, document[FLEET].zones) = rng.pick(&modes);
            document[FLEET].explicit = rng.percent(50);
        }
        document
    };
    (0..count).map(document).collect()
}

/// Adds what one backend does with connections.
fn acts(rng: &mut Rng, backend: usize, steps: &mut Vec<(u64, Step)>) {
    let any = [Act::Serves, Act::Serves, Act::SaysNo, Act::SaysNo, Act::Hangs, Act::Refuses];
    for _ in 0..rng.below(4) {
        steps.push((rng.between(3_000, HEAL - 1_000), Step::Act(backend, rng.pick(&any))));
    }
    let last = if rng.percent(65) { Act::Serves } else { rng.pick(&any) };
    steps.push((HEAL, Step::Act(backend, last)));
}

/// Adds a failure of all backends of a service at once.
fn all_say_no(
    rng: &mut Rng,
    backends: &[Backend],
    steps: &mut Vec<(u64, Step)>,
    themes: [Theme; SERVICES],
) {
    for (service, theme) in themes.iter().enumerate() {
        let checked = matches!(theme, Theme::Health | Theme::HealthAndSplit);
        if !checked || rng.percent(70) {
            continue;
        }
        let (at, act) = (rng.between(5_000, 18_000), rng.pick(&[Act::SaysNo, Act::Hangs]));
        let back = at + rng.between(2_000, 9_000);
        for index in (0..backends.len()).filter(|index| backends[*index].service == service) {
            steps.push((at, Step::Act(index, act)));
            steps.push((back + rng.between(0, 1_000), Step::Act(index, Act::Serves)));
        }
    }
}

/// Adds a long fault of one balancer's network: it reaches no machine, and clients do.
fn reach_nothing(rng: &mut Rng, steps: &mut Vec<(u64, Step)>) {
    let balancer = Host::Balancer(rng.below(BALANCERS));
    let (at, until) = (rng.between(5_000, 8_000), rng.between(HEAL - 3_000, HEAL));
    for machine in (0..MACHINES).map(Host::Machine) {
        steps.push((at, Step::Cut(balancer, machine)));
        steps.push((until, Step::Mend(balancer, machine)));
    }
}

/// Adds marks for the clients of a service. The last ones come after [`HEAL`], because an
/// etcd that lost its data has lost the earlier ones.
fn marks(rng: &mut Rng, service: usize, steps: &mut Vec<(u64, Step)>) {
    let mut touched = [false, false];
    for _ in 0..rng.between(1, 3) {
        let at = rng.between(2_000, HEAL - 1_000);
        let lasts = rng.pick(&[0, 0, 2, 5, 15]);
        let until = (lasts > 0).then_some(at / 1_000 + lasts);
        let mark = match rng.percent(65) {
            true => Mark::Shed(rng.pick(&[10, 30, 50, 100, 100])),
            false => Mark::Fallback,
        };
        touched[usize::from(mark == Mark::Fallback)] = true;
        steps.push((at, Step::Mark(service, mark, until)));
        if rng.percent(50) {
            steps.push((rng.between(at + 100, HEAL), Step::Unmark(service, mark)));
        }
    }
    for (mark, _) in [(Mark::Shed(20), touched[0]), (Mark::Fallback, touched[1])]
        .into_iter()
        .filter(|(_, touched)| *touched)
    {
        let last = match rng.percent(30) {
            true => Step::Mark(service, mark, None),
            false => Step::Unmark(service, mark),
        };
        steps.push((HEAL + 500, last));
    }
}

impl Policy {
    /// Writes the table of a service.
    fn write(&self, service: usize, toml: &mut String) {
        let mut keys = Vec::new();
        if let Some(Health { kind, rise, fall, panic }) = self.health {
            let kind = match kind {
                Kind::Grpc => "grpc",
                Kind::Tcp => "tcp",
                Kind::Observe => "observe",
            };
            keys.push(format!(
                "health = {{ kind = '{kind}', interval = '1s', timeout = '1s', rise = {rise}, \
                 fall = {fall}, panic = {panic} }}"
            ));
        }
        if let Some(Split { canary, by_clients, share }) = self.split {
            let by = if by_clients { "clients" } else { "calls" };
            let share = match share {
                Share::Percent(percent) => format!("percent = {percent}"),
                Share::Ramp(begins) => {
                    let begins = BEGAN.after(std::time::Duration::from_secs(begins));
                    format!("ramp = '20% 10s, 60%', begins = '{begins}'")
                }
            };
            keys.push(format!("split = {{ select = 'id=i{canary}', by = '{by}', {share} }}"));
        }
        if let Some(most) = self.shed {
            keys.push("load = { kind = 'orca', interval = '1s' }".to_owned());
            keys.push(format!("shed = {{ mode = 'overload', most = {most} }}"));
        }
        let mode = |on: bool, name: &'static str| if on { name } else { "off" };
        if self.cells || self.explicit {
            let mode = mode(self.cells, "cells");
            keys.push(format!("subset = {{ mode = '{mode}', least = {CELL} }}"));
        }
        if self.zones || self.explicit {
            keys.push(format!("zones = {{ mode = '{}' }}", mode(self.zones, "prefer")));
        }
        if self.abrupt {
            keys.push("slow-start = '0s'".to_owned());
        }
        if !keys.is_empty() {
            let _ = writeln!(toml, "[service.s{service}]\n{}", keys.join("\n"));
        }
    }

    /// Returns whether backends are left out for their health.
    pub fn health_acts(&self) -> Option<Health> {
        self.health.filter(|health| health.kind != Kind::Observe)
    }
}

/// Returns the document for etcd. `clients` are the addresses of the clients' hosts.
pub fn toml(document: &Document, drops: bool, clients: [IpAddr; CLIENT_HOSTS]) -> String {
    let when_empty = if drops { "drop" } else { "wait" };
    let mut text = format!("[service.'*']\nwhen-empty = '{when_empty}'\n");
    document.iter().enumerate().for_each(|(service, policy)| policy.write(service, &mut text));
    text.push_str("[zones]\n");
    for (address, zone) in clients.into_iter().zip(ZONES) {
        let _ = writeln!(text, "'{address}' = '{zone}'");
    }
    text
}

impl Layout {
    /// Returns the zone of a backend of the large service.
    pub fn zone(self, backend: usize) -> &'static str {
        let mut tenth = backend % 10;
        for (zone, tenths) in ZONES.into_iter().zip(self.0) {
            if tenth < tenths {
                return zone;
            }
            tenth -= tenths;
        }
        "c"
    }
}

impl Share {
    /// Returns the share of the canary at a time in milliseconds, in percent.
    pub fn at(self, at: u64) -> u32 {
        match self {
            Self::Percent(percent) => percent,
            Self::Ramp(begins) if at < begins * 1_000 => 0,
            Self::Ramp(begins) if at < (begins + 10) * 1_000 => 20,
            Self::Ramp(_) => 60,
        }
    }
}

impl Act {
    /// Returns whether a backend that listens is healthy by a check of this kind.
    pub fn passes(self, kind: Kind) -> bool {
        match kind {
            Kind::Tcp => true,
            Kind::Grpc | Kind::Observe => self == Self::Serves,
        }
    }
}
