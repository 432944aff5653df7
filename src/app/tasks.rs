//! Runs the named tasks of a balancer and reports the first that ends.
//!
//! In: futures that should not end. Out: the name of the first that ends, with the reason.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

/// The tasks of a running balancer. Dropping this value ends them.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A part that ended before shutdown.
#[derive(Debug, thiserror::Error)]
#[error("the {name} died: {reason}")]
pub struct Died {
    name: &'static str,
    reason: String,
}

impl Tasks {
    /// Starts a part that must run as long as the balancer.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Starts a task that may end. Only its panic counts as a death.
    pub(super) fn spawn_brief(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(task);
    }

    /// Waits for `stop`, or returns the first part that died.
    pub(super) async fn run_until(&mut self, stop: impl Future<Output = ()>) -> Result<(), Died> {
        let mut stop = std::pin::pin!(stop);
        loop {
            let ended = tokio::select! {
                () = &mut stop => return Ok(()),
                ended = self.set.join_next_with_id() => ended,
            };
            let (name, reason) = match ended {
                Some(Ok((id, ()))) => match self.names.get(&id) {
                    Some(&name) => (name, "it ended by itself".to_owned()),
                    None => continue,
                },
                Some(Err(error)) => {
                    (self.names.get(&error.id()).copied().unwrap_or("task"), error.to_string())
                }
                None => ("balancer", "it has no parts".to_owned()),
            };
            tracing::error!(name, reason, "a vital part died");
            return Err(Died { name, reason });
        }
    }
}
