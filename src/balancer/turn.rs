//! How much one connection may do before others get their turn.
//!
//! In: work done for it, a task's context. Out: whether it may go on. It is
//! tokio's own budget of a task's turn, so whatever else the connection does in
//! the same turn counts too.

use std::task::{Context, Poll};

use tokio::task::coop;

/// Endpoints looked at and entries encoded that cost as much as one socket
/// operation.
const WORK_PER_UNIT: usize = 128;
/// What one list costs at most: under a turn's 128 units, so that it can be
/// written in the turn in which it was made. Two large lists fill a turn.
const UNITS_MAX: usize = 96;

/// Whether this turn is not over; if it is, the task is woken for its next one.
pub(super) fn poll_room(cx: &mut Context<'_>) -> Poll<()> {
    // Given back when dropped: asking costs nothing.
    coop::poll_proceed(cx).map(drop)
}

/// Counts work that was done.
pub(super) fn spend(cx: &mut Context<'_>, work: usize) {
    for _ in 0..work.div_ceil(WORK_PER_UNIT).min(UNITS_MAX) {
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(unit) = coop::poll_proceed(cx) {
            unit.made_progress();
        }
    }
}
