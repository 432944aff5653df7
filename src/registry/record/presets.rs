//! Describes the frameworks' formats.
//!
//! In: a [`Format`]. Out: its [`Decoder`]. The statements about a framework were read
//! in its sources; `docs/formats.md` explains them to operators.

use std::sync::LazyLock;

use super::decoder::{Decoder, Paths};
use super::format::Format;
use super::pattern::Pattern;
use super::tree::Syntax;
use super::weights::LowWeights;

/// The schemes of gRPC in addresses that are URLs.
pub(super) const GRPC: [&str; 2] = ["grpc", "grpcs"];
/// Dubbo's protocols that gRPC clients can call (Triple is an extension of gRPC).
const DUBBO: [&str; 3] = ["tri", "grpc", "grpcs"];

/// Returns the description of a format; `None` if it has none.
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

/// Source: contrib/registry/etcd/registry.go and watcher.go, selector/default_node.go
/// (v2, v3). A missing weight, or one that is no number, is 100. kratos skips a backend
/// whose name is not that of its key.
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

/// Source: pkg/naming/etcd/etcd.go and naming.go of v1. Status 1 is up, 2 is waiting,
/// and 0 is written if the status is never set. A weight that is not above 0 is 10
/// (pkg/net/rpc/warden/resolver/resolver.go).
fn kratos_v1() -> Decoder {
    Decoder {
        claims: paths(&["/appid"]),
        endpoints: paths(&["/addrs"]),
        id: paths(&["/metadata/id"]),
        weight: paths(&["/metadata/weight"]),
        default_weight: 10,
        low_weights: LowWeights::NotSet,
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

/// Source: registry/etcd/etcd.go. Each key holds a list of one node.
/// server/grpc/grpc.go writes the protocol; other servers write theirs or none.
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

/// Source: serverplugin/etcdv3.go of rpcx-etcd. rpcx speaks a protocol of its own. An operator who
/// names this format states that gRPC is served on the same TCP port.
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

/// Source: registry/base_registry.go of dubbo-go, `AbstractServiceConfig` of Dubbo
/// Java. The URL is in the key; `ext.protocol` is spoken on the same port.
/// `URL.valueOf` splits host and port at the last colon. Weights below 0 are raised to
/// 0 (`AbstractLoadBalance.getWeight`).
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
        low_weights: LowWeights::AllAreNone,
        protocol: paths(&["/scheme", "/query/ext.protocol"]),
        schemes: owned(&DUBBO),
        enabled: paths(&["/query/enabled"]),
        meta: paths(&["/query"]),
        ignore: paths(&["/query/timestamp", "/query/remote.timestamp", "/query/pid"]),
        ..json(&["{service...}/providers/{url}"])
    }
}

/// Source: registry/etcdv3/service_discovery.go and service_instance.go. Go writes its
/// own field names; Java's begin in lower case. A weight that is not above 0 is 100.
/// Without a readable list of endpoints, the backend's own port is used.
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
        low_weights: LowWeights::NotSet,
        enabled: paths(&["/Enable", "/enabled"]),
        healthy: paths(&["/Healthy", "/healthy"]),
        meta: paths(&["/Metadata", "/metadata"]),
        labels: labels(&[("group", &["/GroupName"]), ("tag", &["/Tag"])]),
        ignore: paths(&["/Metadata/timestamp", "/metadata/timestamp"]),
        ..json(&["{service...}/{*}"])
    }
}

/// Source: etcd_resolver.go of Kitex, etcd/resolver.go of Hertz. Both treat a weight
/// that is not above 0 as 10.
fn kitex() -> Decoder {
    Decoder {
        address: paths(&["/address"]),
        protocol: paths(&["/network"]),
        schemes: owned(&["tcp", "tcp4", "tcp6"]),
        id: paths(&["/tags/id"]),
        weight: paths(&["/weight"]),
        default_weight: 10,
        low_weights: LowWeights::NotSet,
        meta: paths(&["/tags"]),
        ..json(&["{service...}/{id}"])
    }
}

/// Source: plugin/etcd/msg of `CoreDNS`. The key is a DNS name in reverse order, below
/// one segment. Records without a port serve DNS only. 0 means no weight, and is taken
/// as 100 (`backend_lookup.go`).
fn skydns() -> Decoder {
    Decoder {
        whole_key: true,
        reversed: true,
        needs: paths(&["/host", "/port"]),
        host: paths(&["/host"]),
        port: paths(&["/port"]),
        weight: paths(&["/weight"]),
        default_weight: 100,
        low_weights: LowWeights::NotSet,
        labels: labels(&[
            ("group", &["/group"]),
            ("priority", &["/priority"]),
            ("text", &["/text"]),
        ]),
        ..json(&["{*}/{service...}/{id}"])
    }
}

/// Source: apisix/schema_def.lua and upstream.lua. Nodes are a list or an object by
/// address. If a node has no port, it is that of the scheme. The key holds the id. The
/// name is chosen by the operator, and need not be a valid service name.
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

/// Source: pkg/server/server.go and pkg/registry/update.go. Services of several modes
/// (dev, prod) share an etcd and must not share traffic.
fn jupiter() -> Decoder {
    Decoder {
        whole_key: true,
        skip: patterns(&["{*...}"]),
        // 1 means "deleted" in the old naming API.
        status: paths(&["/Op"]),
        down: owned(&["1"]),
        ..jupiter_info("/MetadataX", "{protocol}:{service}:v1:{scope}/{address}")
    }
}

/// Source: pkg/registry/etcdv3/registry.go up to 0.7.0. Configurators lie beside the
/// providers.
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

/// Source: net/gsvc/gsvc_service.go. The value is only metadata. Without a protocol, it
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

/// Source: sd/etcdv3. The author of the server chooses the value.
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
