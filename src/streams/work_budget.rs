//! Limits how much one connection may do before other tasks run.
//!
//! In: the work done for the connection, and its task's context. Out: whether it may go
//! on. The limit is tokio's own budget of a task's turn, so everything else that the
//! connection does in the same turn counts too.

use std::task::{Context, Poll};

use tokio::task::coop;

/// How many endpoints looked at, or entries encoded, cost as much as one socket
/// operation.
const WORK_PER_UNIT: usize = 128;
/// The most that one list costs: less than a turn's 128 units, so that a list can be
/// written in the turn in which it was made. Two large lists fill a turn.
const UNITS_MAX: usize = 96;

/// Ready while this turn is not over. Otherwise the task is woken for its next turn.
pub(crate) fn poll_left(cx: &mut Context<'_>) -> Poll<()> {
    // The unit is given back when it is dropped, so asking costs nothing.
    coop::poll_proceed(cx).map(drop)
}

/// Counts work that was done for the connection.
pub(crate) fn spend(cx: &mut Context<'_>, work: usize) {
    for _ in 0..work.div_ceil(WORK_PER_UNIT).min(UNITS_MAX) {
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(unit) = coop::poll_proceed(cx) {
            unit.made_progress();
        }
    }
}
