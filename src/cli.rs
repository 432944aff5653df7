//! The command line: one subcommand a file.

pub mod admin_client;
pub mod clients;
pub mod services;
pub mod watch;
