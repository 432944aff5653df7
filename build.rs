//! Compiles the protocols in `proto/`. Needs `protoc` (Debian: `protobuf-compiler`).
//!
//! In: `proto/`. Out: generated Rust code, and descriptors for gRPC server reflection.

use std::path::PathBuf;

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
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
