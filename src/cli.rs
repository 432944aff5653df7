//! The subcommands, one a file.

pub mod dns_records;
