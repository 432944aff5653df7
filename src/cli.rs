//! The subcommands, one a file.

pub mod etcd_args;
pub mod register;
