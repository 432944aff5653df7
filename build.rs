//! Compiles the protocols under `proto/`, and keeps their descriptors for
//! gRPC server reflection. Needs `protoc` (Debian: `protobuf-compiler`).

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("descriptors.bin"))
        // Only `balancer/*` uses these messages; its service is not tonic's
        // (see src/balancer/stream.rs), so no server stub is generated for it.
        .compile_protos(
            &["proto/grpc/lb/v1/load_balancer.proto", "proto/helloworld/greeter.proto"],
            &["proto"],
        )?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
