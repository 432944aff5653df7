//! Audit lines of operators' orders.
//!
//! In: orders, before they are carried out. Out: log lines with the target `audit`: which
//! address gives the order, in whose name, and which mark in force it replaces or ends.

use super::State;
use super::access::peer;
use crate::marks::{Kind, Mark, Value};
use crate::telemetry::audit::TARGET;

impl State {
    /// Logs that an operator sets or ends a mark.
    pub(super) fn audit(&self, does: &str, mark: &Mark) {
        let report = self.marks.report.borrow();
        let former = report.marks.iter().find(|shown| shown.mark.key == mark.key);
        let before = former.map(|shown| shown.mark.to_string());
        let Value { by, why, until, .. } = &mark.value;
        let from = peer();
        let until = until.map(|until| until.to_string());
        let percent = (mark.key.kind() == Kind::Shed).then(|| mark.value.percent());
        tracing::info!(
            target: TARGET, from, does, key = %mark.key, by, why, percent, until, before,
            "operator's order"
        );
    }
}
