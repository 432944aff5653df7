//! A split in force, and the backends to which keys can be assigned: values that policy
//! reads and keeps with a service.
//!
//! In: a service's settings and the share of its ramp. Out: a [`Split`]. It decides nothing.

use crate::facts::factor::Factor;
use crate::model::Selector;
use crate::settings::{ServiceSettings, SplitBy};

/// A split in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// What the canaries have in their metadata.
    pub select: &'a Selector,
    /// What is split.
    pub by: SplitBy,
    /// The canaries' share.
    pub share: Factor,
}

/// A backend to which keys can be assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its index in the snapshot's endpoints.
    pub endpoint: u32,
    /// The weight with which keys are assigned to it.
    pub weight: u32,
    /// The hash of its id. With the hash of its address, keys would move when a backend
    /// restarts at another address.
    pub id: u64,
}

impl<'a> Split<'a> {
    /// Returns the split of a service with these settings; `None` if nothing is split.
    /// `ramp` is the share that the ramp has reached, if there is a ramp.
    pub(super) fn new(settings: &'a ServiceSettings, ramp: Option<Factor>) -> Option<Self> {
        let select = settings.split.select.as_ref()?;
        let share = match settings.split.ramp() {
            Some(_) => ramp.unwrap_or(Factor::ZERO),
            None => settings.split.percent,
        };
        Some(Self { select, by: settings.split.by, share })
    }
}
