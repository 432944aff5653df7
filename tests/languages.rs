//! Tests with real clients of one language each: behaviour of that language only, and the
//! examples for users. tests/interop/ tests the behaviour that all languages with grpclb
//! share. etcd, DNS and the program are real.

#![allow(unreachable_pub, missing_docs)]

#[path = "languages/core.rs"]
mod core;
#[path = "languages/go_examples.rs"]
mod go_examples;
#[path = "languages/java.rs"]
mod java;
#[path = "languages/java_examples.rs"]
mod java_examples;
#[path = "languages/python_examples.rs"]
mod python_examples;
#[path = "languages/without_grpclb.rs"]
mod without_grpclb;
