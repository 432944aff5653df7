//! Compiles the services for which etcd-client has no server. Needs `protoc` (Debian:
//! `protobuf-compiler`).
//!
//! In: `proto/`. Out: generated Rust code.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".etcdserverpb.ResponseHeader", "::etcd_client::proto::PbResponseHeader")
        .extern_path(".mvccpb.KeyValue", "::etcd_client::proto::PbKeyValue")
        .compile_protos(
            &["proto/etcd/auth.proto", "proto/etcd/lock.proto", "proto/etcd/election.proto"],
            &["proto"],
        )?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
