//! The catalog's one task.
//!
//! In: inputs and the time. Out: published changes, and wake-ups for the listeners. It
//! never waits for a listener. Inputs that never end delay no wake-up: each turn of the
//! loop applies the waiting inputs and wakes one slice.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::clock;
use crate::registry::Event;

use super::affected::Affected;
use super::index::Index;
use super::publish::Publisher;
use super::{Catalog, Input, RegistryStatus};

/// Applies inputs until all senders are dropped. `wall` returns the time since 1970. Waiting
/// inputs are applied together, so that a burst costs each service one publication.
pub async fn drive(mut inputs: mpsc::Receiver<Input>, catalog: Catalog, wall: fn() -> Duration) {
    let mut index = Index::new(catalog.settings());
    let mut affected = Affected::default();
    let mut publisher = Publisher::new(wall);
    loop {
        publisher.rounds.turn().await;
        let due = index.due(catalog.status().stale.is_none());
        let due = due.into_iter().chain(publisher.due()).min();
        let input = tokio::select! {
            // No branch can delay another for long: each turn does everything that is due.
            biased;
            input = inputs.recv() => match input {
                Some(input) => Some(input),
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(clock::now).into()), if due.is_some() => None,
            () = publisher.rounds.ready() => continue,
        };
        let before = catalog.status();
        let mut status = before.clone();
        let now = clock::now();
        if let Some(input) = input {
            apply_input(&mut index, &mut publisher, &mut status, &mut affected, input, now);
        }
        // Only the inputs that wait now: senders may be faster than this loop.
        for _ in 0..inputs.len() {
            let Ok(input) = inputs.try_recv() else { break };
            apply_input(&mut index, &mut publisher, &mut status, &mut affected, input, now);
        }
        index.expire(now, status.stale.is_none(), &mut affected);
        status.keys = index.keys();
        catalog.publish(&mut index, std::mem::take(&mut affected), &before, status, &mut publisher);
    }
}

pub(super) fn apply_input(
    index: &mut Index,
    publisher: &mut Publisher,
    status: &mut RegistryStatus,
    affected: &mut Affected,
    input: Input,
    now: Instant,
) {
    let event = match input {
        Input::Hosts(resolved) => return index.resolved(resolved, affected),
        Input::Probed(addr, answer) => return index.probed(addr, answer, affected),
        Input::HealthChecked(target, answer) => {
            return affected.services.extend(publisher.health.answered(&target, answer, now));
        }
        Input::Reported(totals) => {
            return affected.services.extend(publisher.health.reported(&totals, now));
        }
        Input::Loaded(target, report) => return publisher.load.reported(&target, report, now),
        Input::LoadSilent(target) => return publisher.load.failed(&target),
        Input::Release(canonical, age) => {
            let before = now.checked_sub(age).unwrap_or(now);
            return index.release(&canonical, before, affected);
        }
        Input::Settings(settings) => {
            affected.settings = Some(settings.clone());
            return index.set_settings(settings, affected);
        }
        Input::Marks(marks) => {
            affected.marks = Some(marks);
            return;
        }
        Input::Demand(service, demand) => {
            affected.demands.insert(service, demand);
            return;
        }
        Input::Started(rates) => {
            let Publisher { load, shed, .. } = publisher;
            return affected.services.extend(shed.started(&rates, load, now));
        }
        Input::Placed(service) => {
            *publisher.placed.entry(service.clone()).or_default() += 1;
            return affected.service(&service);
        }
        Input::Origins(asked) => {
            // The caller may have stopped waiting.
            let _ = asked.answer.send(index.origins(&asked.service, &asked.backends));
            return;
        }
        Input::Restored(restored) if !status.synced => {
            status.synced = true;
            status.restored = Some(restored.saved.clone());
            return index.restore(restored, now, affected);
        }
        Input::Restored(_) => return,
        Input::Registry(event) => event,
    };
    match &event {
        Event::Reset { revision, .. } | Event::Apply { revision, .. } => {
            if let Some((since, _)) = status.stale.take() {
                tracing::info!(revision, silent_for = ?now.duration_since(since), "registry answers again");
            }
            if matches!(event, Event::Reset { .. }) {
                status.synced = true;
                status.restored = None;
            }
            status.revision = *revision;
            status.last_answer = Some(now);
        }
        Event::Stale { since, reason } => {
            if status.stale.is_none() {
                tracing::warn!(reason, served = status.served(), "registry is stale");
            }
            status.stale = Some((*since, reason.clone()));
        }
    }
    index.apply(event, now, affected);
}

#[cfg(test)]
mod tests;
