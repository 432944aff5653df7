//! Compiles the protocols under `proto/`, and keeps their descriptors for
//! gRPC server reflection. Needs `protoc` (Debian: `protobuf-compiler`).

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Each protocol has descriptors of its own: reflection tells of what the
    // server serves, and that is not the examples' greeter.
    for (proto, descriptors) in [
        ("proto/grpc/lb/v1/load_balancer.proto", "load_balancer.bin"),
        ("proto/helloworld/greeter.proto", "greeter.bin"),
    ] {
        tonic_prost_build::configure()
            .file_descriptor_set_path(out.join(descriptors))
            .compile_protos(&[proto], &["proto"])?;
    }
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
