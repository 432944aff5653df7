//! The frameworks' formats, each as one description.
//!
//! In: a [`Format`]. Out: its [`Decoder`]. What is said here of a framework was
//! read in its sources; `docs/formats.md` says the same for people.

use std::sync::LazyLock;

use super::decoder::{Decoder, Paths};
use super::format::Format;
use super::pattern::Pattern;
use super::tree::Syntax;
use super::weights::Low;

/// What gRPC is called where addresses are URLs.
pub(super) const GRPC: [&str; 2] = ["grpc", "grpcs"];
/// Dubbo's protocols that gRPC clients can call (Triple is gRPC with more).
const DUBBO: [&str; 3] = ["tri", "grpc", "grpcs"];

/// The description of a format that has one.
pub(super) fn of(format: &Format) -> Option<&'static Decoder> {
    PRESETS.iter().find(|(preset, _)| preset == format).map(|(_, decoder)| decoder)
}

static PRESETS: LazyLock<[(Format, Decoder); 14]> = LazyLock::new(|| {
    [
        (Format::Kratos, kratos()),
        (Format::KratosV1, kratos_v1()),
        (Format::GoMicro, go_micro()),
        (Format::Rpcx, rpcx()),
        (Format::Dubbo, dubbo()),
        (Format::DubboApp, dubbo_app()),
        (Format::Kitex, kitex()),
        (Format::Hertz, kitex()),
        (Format::Skydns, skydns()),
        (Format::Apisix, apisix()),
        (Format::Jupiter, jupiter()),
        (Format::Jupiter2020, jupiter_2020()),
        (Format::GoFrame, goframe()),
        (Format::GoKit, go_kit()),
    ]
});

/// contrib/registry/etcd/registry.go and watcher.go, selector/default_node.go
/// (v2, v3): an instance that names no weight, or none that is a number, has
/// 100; one whose name is not that of its key is skipped.
fn kratos() -> Decoder {
    Decoder {
        claims: paths(&["/name"]),
        endpoints: paths(&["/endpoints"]),
        id: paths(&["/id"]),
        weight: paths(&["/metadata/weight"]),
        default_weight: 100,
        meta: paths(&["/metadata"]),
        labels: labels(&[("version", &["/version"])]),
        ..json(&["{service...}/{id}"])
    }
}

/// pkg/naming/etcd/etcd.go and naming.go of v1: status 1 is up, 2 waits, and 0
/// is what is written where nobody sets it. A weight that is not above 0 counts
/// as 10 (pkg/net/rpc/warden/resolver/resolver.go).
fn kratos_v1() -> Decoder {
    Decoder {
        claims: paths(&["/appid"]),
        endpoints: paths(&["/addrs"]),
        id: paths(&["/metadata/id"]),
        weight: paths(&["/metadata/weight"]),
        default_weight: 10,
        low: Low::NotSet,
        status: paths(&["/status"]),
        up: owned(&["1", "0"]),
        meta: paths(&["/metadata"]),
        labels: labels(&[
            ("region", &["/region"]),
            ("zone", &["/zone"]),
            ("env", &["/env"]),
            ("version", &["/version"]),
        ]),
        ignore: paths(&["/latest_timestamp"]),
        ..json(&["{service...}/{id}"])
    }
}

/// registry/etcd/etcd.go: one node a key, in a list; server/grpc/grpc.go says
/// the protocol, other servers say theirs or nothing.
fn go_micro() -> Decoder {
    Decoder {
        claims: paths(&["/name"]),
        endpoints: paths(&["/nodes"]),
        address: paths(&["/address"]),
        id: paths(&["/id"]),
        weight: paths(&["/metadata/weight"]),
        protocol: paths(&["/metadata/protocol"]),
        default_protocol: Some("mucp".to_owned()),
        meta: paths(&["/metadata"]),
        labels: labels(&[("version", &["/version"])]),
        ..json(&["{service...}/{id}"])
    }
}

/// serverplugin/etcdv3.go. rpcx speaks a protocol of its own; whoever names
/// this format says that gRPC is served on the same TCP port.
fn rpcx() -> Decoder {
    Decoder {
        skip: patterns(&["{*...}"]),
        syntax: Syntax::Query,
        schemes: owned(&["tcp"]),
        id: paths(&["/id"]),
        weight: paths(&["/weight"]),
        status: paths(&["/state"]),
        down: owned(&["inactive"]),
        meta: paths(&[""]),
        ignore: paths(&["/calls", "/connections"]),
        ..json(&["{service...}/{protocol}@{address}"])
    }
}

/// registry/base_registry.go of dubbo-go, `AbstractServiceConfig` of Dubbo Java:
/// the URL is in the key; `ext.protocol` is spoken on the same port. `URL.valueOf`
/// parts host and port at the last colon; weights below 0 are raised to 0
/// (`AbstractLoadBalance.getWeight`).
fn dubbo() -> Decoder {
    Decoder {
        skip: patterns(&["{*...}"]),
        syntax: Syntax::Nothing,
        claims: paths(&["/query/interface"]),
        encoded: true,
        address: paths(&["/address"]),
        last_colon: true,
        id: paths(&["/query/id"]),
        weight: paths(&["/query/weight"]),
        default_weight: 100,
        low: Low::AllAreNone,
        protocol: paths(&["/scheme", "/query/ext.protocol"]),
        schemes: owned(&DUBBO),
        enabled: paths(&["/query/enabled"]),
        meta: paths(&["/query"]),
        ignore: paths(&["/query/timestamp", "/query/remote.timestamp", "/query/pid"]),
        ..json(&["{service...}/providers/{url}"])
    }
}

/// registry/etcdv3/service_discovery.go and service_instance.go: Go's own field
/// names; Java's begin in lower case. A weight that is not above 0 is 100.
/// Without a list of endpoints, or with one that cannot be read, the instance's
/// own port counts.
fn dubbo_app() -> Decoder {
    Decoder {
        claims: paths(&["/ServiceName", "/serviceName"]),
        endpoints: paths(&["/Metadata/dubbo.endpoints", "/metadata/dubbo.endpoints"]),
        host: paths(&["/Host", "/host"]),
        port: paths(&["/port", "/Port"]),
        protocol: paths(&["/protocol"]),
        schemes: owned(&DUBBO),
        id: paths(&["/ID", "/id"]),
        weight: paths(&["/Weight"]),
        default_weight: 100,
        low: Low::NotSet,
        enabled: paths(&["/Enable", "/enabled"]),
        healthy: paths(&["/Healthy", "/healthy"]),
        meta: paths(&["/Metadata", "/metadata"]),
        labels: labels(&[("group", &["/GroupName"]), ("tag", &["/Tag"])]),
        ignore: paths(&["/Metadata/timestamp", "/metadata/timestamp"]),
        ..json(&["{service...}/{*}"])
    }
}

/// etcd_resolver.go of Kitex, etcd/resolver.go of Hertz, alike: a weight that is
/// not above 0 is 10.
fn kitex() -> Decoder {
    Decoder {
        address: paths(&["/address"]),
        protocol: paths(&["/network"]),
        schemes: owned(&["tcp", "tcp4", "tcp6"]),
        id: paths(&["/tags/id"]),
        weight: paths(&["/weight"]),
        default_weight: 10,
        low: Low::NotSet,
        meta: paths(&["/tags"]),
        ..json(&["{service...}/{id}"])
    }
}

/// plugin/etcd/msg of `CoreDNS`: the key is a name, read from its end, below
/// one segment. Records without a port are for DNS alone; 0 is no weight, and
/// counts as 100 (`backend_lookup.go`).
fn skydns() -> Decoder {
    Decoder {
        whole_key: true,
        reversed: true,
        needs: paths(&["/host", "/port"]),
        host: paths(&["/host"]),
        port: paths(&["/port"]),
        weight: paths(&["/weight"]),
        default_weight: 100,
        low: Low::NotSet,
        labels: labels(&[
            ("group", &["/group"]),
            ("priority", &["/priority"]),
            ("text", &["/text"]),
        ]),
        ..json(&["{*}/{service...}/{id}"])
    }
}

/// apisix/schema_def.lua and upstream.lua: nodes as a list or by address; the
/// scheme says the port where a node does not. The key says the id; the name is
/// the operator's, and need not be one that clients can type.
fn apisix() -> Decoder {
    Decoder {
        skip: patterns(&["{*...}"]),
        empty: owned(&["init_dir"]),
        title: paths(&["/name"]),
        claims: paths(&["/id"]),
        needs: paths(&["/nodes"]),
        endpoints: paths(&["/nodes"]),
        host: paths(&["/host"]),
        port: paths(&["/port"]),
        default_ports: true,
        weight: paths(&["/weight"]),
        protocol: paths(&["/scheme"]),
        default_protocol: Some("http".to_owned()),
        meta: paths(&["/labels"]),
        labels: labels(&[("priority", &["/priority"])]),
        ..json(&["{service}", "upstreams/{service}"])
    }
}

/// pkg/server/server.go and pkg/registry/update.go. Services of several modes
/// (dev, prod) share an etcd and must not share traffic.
fn jupiter() -> Decoder {
    Decoder {
        whole_key: true,
        skip: patterns(&["{*...}"]),
        // "Deleted", in the old naming API.
        status: paths(&["/Op"]),
        down: owned(&["1"]),
        ..jupiter_info("/MetadataX", "{protocol}:{service}:v1:{scope}/{address}")
    }
}

/// pkg/registry/registry.go of 2020; configurators lie beside the providers.
fn jupiter_2020() -> Decoder {
    Decoder {
        skip: patterns(&["{*...}"]),
        ..jupiter_info("", "{service...}/providers/{protocol}://{address}")
    }
}

fn jupiter_info(at: &str, key: &str) -> Decoder {
    let field = |name: &str| vec![format!("{at}/{name}")];
    let label = |name: &str| (name.to_owned(), field(name));
    let said = ["region", "zone", "version", "group", "deployment", "mode", "hostname"];
    Decoder {
        claims: field("name"),
        id: field("metadata/id"),
        weight: field("weight"),
        default_weight: 100,
        enabled: field("enable"),
        healthy: field("healthy"),
        meta: field("metadata"),
        labels: said.map(label).into(),
        ..json(&[key])
    }
}

/// net/gsvc/gsvc_service.go: the value is metadata alone; without a protocol it
/// is HTTP.
fn goframe() -> Decoder {
    Decoder {
        empty: owned(&["", "null"]),
        id: paths(&["/id"]),
        weight: paths(&["/weight"]),
        protocol: paths(&["/protocol"]),
        default_protocol: Some("http".to_owned()),
        meta: paths(&[""]),
        ..json(&["{scope...}/{service}/{version}/{addresses}"])
    }
}

/// sd/etcdv3: the value is whatever the server's author thought of.
fn go_kit() -> Decoder {
    Decoder { syntax: Syntax::Text, address: paths(&[""]), ..json(&["{service...}/{id}"]) }
}

fn json(keys: &[&str]) -> Decoder {
    Decoder {
        keys: patterns(keys),
        syntax: Syntax::Json,
        default_weight: 1,
        schemes: owned(&GRPC),
        ..Decoder::default()
    }
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().filter_map(|text| Pattern::parse(text).ok()).collect()
}

fn paths(all: &[&str]) -> Paths {
    owned(all)
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|&text| text.to_owned()).collect()
}

fn labels(all: &[(&str, &[&str])]) -> Vec<(String, Paths)> {
    all.iter().map(|(name, found)| ((*name).to_owned(), paths(found))).collect()
}

#[cfg(test)]
mod resolvers;
#[cfg(test)]
pub(super) mod tests;
