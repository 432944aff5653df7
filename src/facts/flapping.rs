//! Flap delay: a backend that left several times must stay for a while before it is listed.
//!
//! In: when a backend left and when it returned; the time. Out: until when it is
//! delayed. Pure. It delays no removal, and no backend that restarts once.
//!
//! Without the delay, a backend that comes and goes each second costs 3,600 pushes an hour.
//! Two other rules were simulated: BGP's penalty with a half-life, and a delay that doubles
//! from the first removal on. Both delay backends that restart once.

/// How long a removal counts. All times in this file are in milliseconds.
const WINDOW: u64 = 300_000;
/// A backend with at least this many removals that count is delayed when it returns.
const FIRST_DELAYED: usize = 3;
/// The delay after the third removal. It doubles with each further removal.
const DELAY: u64 = 5_000;
/// How many removals are remembered. After this many the delay does not grow.
const REMEMBERED: usize = 13;
/// No backend is delayed if more than this percentage of a service's weight would be. Then
/// the service or the probe flaps, not a backend.
const DELAYED_MAX_PERCENT: u64 = 20;

/// The removals and returns of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flaps {
    /// The times of its removals, newest first.
    removals: [Option<u64>; REMEMBERED],
    /// The end of its delay; `None` while it is away or after it was listed.
    until: Option<u64>,
}

impl Flaps {
    /// Records that the backend left, whether it was listed or not.
    pub fn left(&mut self, now: u64) {
        self.removals.rotate_right(1);
        self.removals[0] = Some(now);
        self.until = None;
    }

    /// Records that the backend returned. Returns when it may be listed: at `now`, or up to
    /// `longest` later.
    pub fn returned(&mut self, now: u64, longest: u64) -> u64 {
        let recent = self.recent(now);
        let delay = if recent < FIRST_DELAYED { 0 } else { DELAY << (recent - FIRST_DELAYED) };
        let until = now.saturating_add(delay.min(longest));
        self.until = Some(until);
        until
    }

    /// Returns until when the backend is delayed; `None` if it is not.
    #[must_use]
    pub fn until(&self, now: u64) -> Option<u64> {
        self.until.filter(|&until| now < until)
    }

    /// Ends the delay: the backend is listed.
    pub fn list(&mut self) {
        self.until = None;
    }

    /// Returns whether this value can be dropped: it delays the backend neither now nor at
    /// its next return.
    #[must_use]
    pub fn is_forgotten(&self, now: u64) -> bool {
        self.recent(now) == 0 && self.until(now).is_none()
    }

    /// Returns how many removals count.
    fn recent(&self, now: u64) -> usize {
        let counts = |&&removal: &&u64| now.saturating_sub(removal) < WINDOW;
        self.removals.iter().flatten().filter(counts).count()
    }
}

/// Returns which of a service's backends are delayed. `backends` has the weight of each
/// backend that could be listed, and whether its own flaps ask for a delay. If they are more
/// than a fifth of the weight, no backend is delayed. One exception: a single backend is
/// delayed if others are listed, because in a small service one backend may be that much.
#[must_use]
pub fn delayed(backends: &[(u32, bool)]) -> Vec<bool> {
    let sum = |all: &mut dyn Iterator<Item = &(u32, bool)>| all.map(|one| u64::from(one.0)).sum();
    let total: u64 = sum(&mut backends.iter());
    let delayed: u64 = sum(&mut backends.iter().filter(|one| one.1));
    let count = backends.iter().filter(|one| one.1).count();
    let few = delayed * 100 <= total * DELAYED_MAX_PERCENT || count == 1;
    backends.iter().map(|one| one.1 && few && delayed < total).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: u64 = 300_000;

    /// Makes a backend register for `up` seconds and stay away for `down` seconds, again
    /// and again. Returns the pushes of an hour, and the percentage of its registered time
    /// for which it was not listed.
    fn hour(up: u64, down: u64) -> (u32, u64) {
        let mut one = Flaps::default();
        let (mut pushes, mut listed, mut waited, mut there) = (0, true, 0, 0);
        let mut until = 0;
        for second in 0..3_600 {
            let now = second * 1_000;
            match second % (up + down) {
                0 if second > 0 => until = one.returned(now, LONGEST),
                at if at == up => {
                    one.left(now);
                    pushes += u32::from(listed);
                    listed = false;
                }
                _ => {}
            }
            if second % (up + down) < up {
                there += 1;
                assert_eq!(one.until(now).is_some(), now < until);
                if now >= until && !listed {
                    pushes += 1;
                    listed = true;
                }
                waited += u64::from(!listed);
            }
        }
        (pushes, 100 * waited / there)
    }

    #[test]
    fn a_flapping_backend_costs_few_pushes_and_a_restart_nothing() {
        assert_eq!(hour(1, 1), (5, 99));
        assert_eq!(hour(10, 10), (7, 98));
        assert_eq!(hour(60, 60), (59, 0));
        assert_eq!(hour(590, 10), (11, 0));
    }

    #[test]
    fn the_delay_doubles_up_to_five_minutes_and_is_forgotten() {
        let mut one = Flaps::default();
        let delays: Vec<u64> = (0..12_u64)
            .map(|at| {
                one.left(at * 1_000);
                one.returned(at * 1_000, LONGEST) - at * 1_000
            })
            .collect();
        let expected =
            [0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300, 300].map(|delay: u64| delay * 1_000);
        assert_eq!(delays, expected);
        assert!(!one.is_forgotten(310_000) && one.is_forgotten(311_000));
        one.left(311_000);
        assert_eq!(one.returned(312_000, LONGEST), 312_000);
    }

    #[test]
    fn a_service_that_flaps_is_not_delayed() {
        let service = |count: usize| -> usize {
            let all: Vec<_> = (0..10).map(|at| (1, at < count)).collect();
            delayed(&all).into_iter().filter(|&delayed| delayed).count()
        };
        assert_eq!([0, 1, 2, 3, 10].map(service), [0, 1, 2, 0, 0]);
        // A small service may delay one backend, but not its last.
        assert_eq!(delayed(&[(1, true), (1, false)]), [true, false]);
        assert_eq!(delayed(&[(1, true)]), [false]);
        assert_eq!(delayed(&[]), [false; 0]);
    }

    proptest! {
        #[test]
        fn enough_is_always_listed(all in proptest::collection::vec((1..9_u32, any::<bool>()), 0..40)) {
            let delayed = delayed(&all);
            let total: u32 = all.iter().map(|one| one.0).sum();
            let sum: u32 = all.iter().zip(&delayed).filter(|one| *one.1).map(|one| one.0.0).sum();
            let count = delayed.iter().filter(|&&delayed| delayed).count();
            prop_assert!(sum * 5 <= total || count == 1);
            prop_assert!(all.is_empty() || sum < total);
            prop_assert!(all.iter().zip(&delayed).all(|(one, &delayed)| one.1 || !delayed));
        }

        /// However it comes and goes, a backend that stays is listed within five minutes.
        #[test]
        fn a_backend_that_stays_is_listed(times in proptest::collection::vec(0..100_000_u64, 0..50)) {
            let (mut one, mut now) = (Flaps::default(), 0);
            for pair in times.chunks(2) {
                now += pair[0];
                one.left(now);
                now += pair.get(1).copied().unwrap_or_default();
                one.returned(now, LONGEST);
            }
            prop_assert_eq!(one.until(now + LONGEST), None);
            prop_assert!(one.is_forgotten(now + LONGEST));
        }
    }
}
