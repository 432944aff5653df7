//! Tests with real clients of one language each: what only that language does, and the
//! examples for users. What all languages with grpclb share is in tests/interop/.
//! etcd, DNS and the program are real.

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
