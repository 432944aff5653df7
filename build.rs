//! Compiles the protocols in `proto/`. Needs `protoc` (Debian: `protobuf-compiler`).
//!
//! In: `proto/`. Out: generated Rust code, and descriptors for gRPC server reflection.

use std::path::PathBuf;

/// The services, the resources and the policies of xDS. The other files are imported by these.
const XDS: [&str; 12] = [
    "proto/envoy/service/discovery/v3/ads.proto",
    "proto/envoy/service/endpoint/v3/eds.proto",
    "proto/envoy/service/load_stats/v3/lrs.proto",
    "proto/envoy/config/listener/v3/listener.proto",
    "proto/envoy/config/cluster/v3/cluster.proto",
    "proto/envoy/config/endpoint/v3/endpoint.proto",
    "proto/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "proto/envoy/extensions/filters/http/router/v3/router.proto",
    "proto/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto",
    "proto/envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "proto/envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "proto/envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Each protocol has its own descriptors, because reflection must not list the greeter of
    // the examples, which the server does not serve.
    for (proto, descriptors) in [
        ("proto/grpc/lb/v1/load_balancer.proto", "load_balancer.bin"),
        ("proto/helloworld/greeter.proto", "greeter.bin"),
        ("proto/xds/service/orca/v3/orca.proto", "orca.bin"),
    ] {
        tonic_prost_build::configure()
            .file_descriptor_set_path(out.join(descriptors))
            .compile_protos(&[proto], &["proto"])?;
    }
    // The messages of xDS lie in many packages, and the included file nests their modules.
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .file_descriptor_set_path(out.join("xds.bin"))
        .include_file("xds.rs")
        .compile_protos(&XDS, &["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
