//! The target of log lines about changes: who changed what, from where.
//!
//! In: nothing. Out: the name by which `--audit-log` chooses its lines. Every change that an
//! operator makes, here or at another balancer, and every change of settings is one line with
//! this target.

/// The target of these lines.
pub const TARGET: &str = "audit";
