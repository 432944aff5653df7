//! Small state machines about single backends, and about a service's health.
//!
//! In: what was seen of a backend, and when. Out: what a decision must take into account,
//! in few steps, because each step is a push to every client. Pure: the catalog's one
//! writer and the drivers own the values and say what time it is.

pub mod capacity;
pub mod factor;
pub mod flapping;
pub mod panic;
pub mod rise_fall;
pub mod shedding;
pub mod slow_start;
