//! Small state machines about single backends, about a service's health, and about the
//! demand of its clients.
//!
//! In: observations of a backend, with their times. Out: factors and verdicts for the
//! decision. They change in few steps, because each step is a push to every client. Pure:
//! the catalog's one writer and the drivers own the values, and pass the time.

pub mod capacity;
pub mod demand;
pub mod factor;
pub mod flapping;
pub mod panic;
pub mod ramp;
pub mod reported;
pub mod rise_fall;
pub mod shedding;
pub mod slow_start;
pub mod zone_shares;
pub mod zones;
