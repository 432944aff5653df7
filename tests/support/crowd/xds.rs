//! The xDS of one client of a crowd: what it asks for, and the rules that each response must
//! keep. It behaves like grpc-go.
//!
//! In: the balancer's responses. Out: requests, the client's list, and a text for each rule
//! that a response breaks.
//!
//! | a response | must |
//! |---|---|
//! | of any type | be asked for on its stream, and have exactly the name that was asked for |
//! | | come only when the former of its type is answered; have a new nonce |
//! | | have the version of its content: one content for a version on all streams and balancers, and one version for a content |
//! | of the same content | come once on a stream |
//! | with endpoints | be one that no client of gRPC refuses |

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::ads::{self, Kind, Response};

/// What a client has, and what it waits for.
#[derive(Debug, Default)]
pub struct Xds {
    of: [State; 3],
    /// Whether the node was sent on this stream.
    introduced: bool,
}

/// The state of one type.
#[derive(Debug, Default)]
struct State {
    /// The newest one, of any stream.
    has: Option<Arc<Resource>>,
    /// Whether it was asked for on this stream.
    asked: bool,
    /// The newest nonce on this stream.
    nonce: Vec<u8>,
    /// Whether the answer to the newest response was not written yet.
    unanswered: bool,
}

/// What a response means.
#[derive(Debug)]
pub enum News {
    /// A listener or a cluster.
    Described,
    /// A `ClusterLoadAssignment`.
    Assigned(Arc<Resource>),
    /// It breaks a rule.
    Broken(String),
}

/// A resource that was sent.
#[derive(Debug)]
pub struct Resource {
    kind: Kind,
    version: Vec<u8>,
    bytes: Vec<u8>,
    /// The backends that clients use.
    pub servers: Vec<SocketAddr>,
}

/// All resources that were sent, by version. A resource is decoded once, and each one that
/// clients get is compared with it.
#[derive(Debug, Default)]
pub struct Resources(HashMap<Vec<u8>, Vec<Arc<Resource>>>);

impl Xds {
    /// Begins a stream. Writes the requests that a client begins with: for a listener, or for
    /// everything that it has, in the order in which clients were seen to ask.
    pub fn begin(&mut self, name: &str, out: &mut Vec<u8>) {
        self.introduced = false;
        for state in &mut self.of {
            *state = State { has: state.has.take(), ..State::default() };
        }
        for kind in [Kind::Endpoints, Kind::Cluster, Kind::Listener] {
            if kind == Kind::Listener || self.of[kind as usize].has.is_some() {
                self.ask(kind, name, out);
            }
        }
    }

    /// Notes that everything was written.
    pub fn written(&mut self) {
        self.of.iter_mut().for_each(|state| state.unanswered = false);
    }

    /// Takes a response. Writes its acknowledgement, and the request for the next type.
    pub fn take(
        &mut self,
        name: &str,
        bytes: &[u8],
        known: &mut Resources,
        out: &mut Vec<u8>,
    ) -> News {
        let response = Response::parse(bytes);
        let Some(kind) = Kind::of(response.url) else {
            let url = String::from_utf8_lossy(response.url);
            return News::Broken(format!("a response of the type {url:?}"));
        };
        match self.check(kind, name, &response, known) {
            Err(what) => return News::Broken(format!("{kind:?}: {what}")),
            Ok(resource) => self.of[kind as usize].has = Some(resource),
        }
        self.ask(kind, name, out);
        let next = match (kind, &self.of[kind as usize].has) {
            (Kind::Endpoints, Some(assignment)) => return News::Assigned(assignment.clone()),
            (Kind::Listener, _) => Kind::Cluster,
            _ => Kind::Endpoints,
        };
        if !self.of[next as usize].asked {
            self.ask(next, name, out);
        }
        News::Described
    }

    /// Returns the resource of a response, or the rule that it breaks.
    fn check(
        &mut self,
        kind: Kind,
        name: &str,
        response: &Response<'_>,
        known: &mut Resources,
    ) -> Result<Arc<Resource>, String> {
        let state = &mut self.of[kind as usize];
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        must(state.asked, "not asked for")?;
        let [(url, bytes)] = response.resources[..] else {
            let (count, errors) = (response.resources.len(), response.errors);
            return Err(format!("{count} resources and {errors} errors for one name"));
        };
        let found = String::from_utf8_lossy(ads::name_of(bytes));
        must(url == response.url && found == name, &format!("a resource named {found:?}"))?;
        must(!state.unanswered, "sent before the former was answered")?;
        state.unanswered = true;
        must(!response.nonce.is_empty() && response.nonce != state.nonce, "no new nonce")?;
        let first = state.nonce.is_empty();
        state.nonce = response.nonce.to_vec();
        must(!response.version.is_empty(), "no version")?;
        let resource = known.find(kind, response.version, bytes)?;
        if let Some(had) = &state.has {
            must(first || !Arc::ptr_eq(had, &resource), "sent again without a change")?;
            let changed = had.version != resource.version;
            must(!changed || had.bytes != resource.bytes, "a new version without a change")?;
        }
        Ok(resource)
    }

    fn ask(&mut self, kind: Kind, name: &str, out: &mut Vec<u8>) {
        let state = &mut self.of[kind as usize];
        state.asked = true;
        let version = state.has.as_ref().map_or(&[][..], |has| &has.version);
        let introduces = !std::mem::replace(&mut self.introduced, true);
        out.extend(ads::request(kind, name, version, &state.nonce, introduces));
    }
}

impl Resources {
    /// Returns the resource with this version and content. An error is a rule that it breaks.
    fn find(&mut self, kind: Kind, version: &[u8], bytes: &[u8]) -> Result<Arc<Resource>, String> {
        let name = ads::name_of(bytes);
        let same = |one: &&Arc<Resource>| one.kind == kind && ads::name_of(&one.bytes) == name;
        if let Some(one) = self.0.get(version).and_then(|all| all.iter().find(same)) {
            let equal = one.bytes == bytes;
            return if equal { Ok(one.clone()) } else { Err("a version with two contents".into()) };
        }
        let mut servers = Vec::new();
        if kind == Kind::Endpoints {
            if let Some(problem) = ads::problem(bytes) {
                return Err(problem.to_owned());
            }
            servers = ads::servers(bytes).collect();
        }
        let (version, bytes) = (version.to_vec(), bytes.to_vec());
        let new = Arc::new(Resource { kind, version: version.clone(), bytes, servers });
        self.0.entry(version).or_default().push(new.clone());
        Ok(new)
    }
}
