//! Canary by calls: how many entries give a group of backends an exact share of all calls.
//!
//! In: the cycles of both groups, the canaries' share, the most entries. Out: how often each
//! cycle is repeated. Pure. It uses integers only, so every replica computes the same. For a
//! canary by clients see `rendezvous::is_in_share`.

use crate::facts::factor::Factor;

/// The entries of two groups in one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// The cycles of the canaries and of the others are repeated so many times.
    Repeat {
        /// How often the canaries' cycle is repeated.
        canaries: u64,
        /// How often the others' cycle is repeated.
        others: u64,
    },
    /// The cycle of the group with the greater share is repeated, and the other group has
    /// so many entries, which are no multiple of its cycle.
    Fill {
        /// How often the larger group's cycle is repeated.
        repeat: u64,
        /// The number of entries of the smaller group.
        fill: u64,
    },
}

const MILLION: u64 = Factor::ONE.as_millionths() as u64;
/// How far from the wanted share a short cycle may be, relative to it: one in 100.
const NEAR: u64 = 100;

/// Returns how many entries give the canaries `share` of all calls. `canaries` and `others`
/// are the lengths of the groups' own cycles, and `share` is neither 0 nor 1. The whole
/// cycle has at most `most` entries, or as many as the larger group's cycle needs.
///
/// The share is exact if that is possible within `most`. Else it is within a hundredth of
/// itself if that is possible, and else as near as the room allows.
#[must_use]
pub fn entries(canaries: u64, others: u64, share: Factor, most: u64) -> Entries {
    let share = u64::from(share.as_millionths());
    let turned = 2 * share > MILLION;
    let (small, large, part) =
        if turned { (others, canaries, MILLION - share) } else { (canaries, others, share) };
    let rest = MILLION - part;
    let repeat = |small, large| match turned {
        true => Entries::Repeat { canaries: large, others: small },
        false => Entries::Repeat { canaries: small, others: large },
    };
    // Exact: `b * small : a * large = part : rest`.
    let (a, b) = (small * rest, large * part);
    let divisor = gcd(a, b).max(1);
    let (a, b) = (a / divisor, b / divisor);
    if a.saturating_mul(large).saturating_add(b.saturating_mul(small)) <= most {
        return repeat(b, a);
    }
    // Near, and the members of the smaller group still have their proportions.
    for a in 1..=most / large.max(1) {
        let wanted = a * large * part;
        let b = (wanted + rest * small / 2) / (rest * small);
        let off = (b * small * rest).abs_diff(wanted);
        if b > 0 && a * large + b * small <= most && off * NEAR <= wanted {
            return repeat(b, a);
        }
    }
    let a = (most * rest / MILLION / large.max(1)).max(1);
    let fill = ((a * large * part + rest / 2) / rest).max(1);
    Entries::Fill { repeat: a, fill }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(hundredths: u32) -> Factor {
        Factor::millionths(hundredths * 100)
    }

    #[test]
    fn a_share_is_exact_where_there_is_room() {
        let check = |canaries, others, hundredths, most, expected: (u64, u64)| {
            let found = entries(canaries, others, percent(hundredths), most);
            let (canaries, others) = expected;
            assert_eq!(found, Entries::Repeat { canaries, others });
        };
        check(1, 9, 1_000, 1_024, (1, 1));
        check(1, 9, 500, 1_024, (9, 19));
        check(1, 1, 50, 1_024, (1, 199));
        check(10, 90, 500, 2_000, (9, 19));
        check(1, 9, 5_000, 1_024, (9, 1));
        check(1, 1, 9_900, 1_024, (99, 1));
        // 9 in 1,800 would be exact.
        check(1, 9, 50, 1_024, (1, 22));
        // No multiple of ten entries is near half a percent of so few.
        let fill = Entries::Fill { repeat: 11, fill: 5 };
        assert_eq!(entries(10, 90, percent(50), 1_024), fill);
    }

    proptest! {
        #[test]
        fn the_share_is_near_and_the_room_is_kept(
            canaries in 1..400_u64, others in 1..400_u64, hundredths in 1..10_000_u32,
            room in 0..20_000_u64,
        ) {
            let most = 2 * (canaries + others) + room;
            let found = entries(canaries, others, percent(hundredths), most);
            let turned = hundredths > 5_000;
            let (has_canaries, has_others) = match found {
                Entries::Repeat { canaries: a, others: b } => (a * canaries, b * others),
                Entries::Fill { repeat, fill } if turned => (repeat * canaries, fill),
                Entries::Fill { repeat, fill } => (fill, repeat * others),
            };
            let total = has_canaries + has_others;
            prop_assert!(total <= most + 1, "{found:?}");
            let off = has_canaries as f64 - total as f64 * f64::from(hundredths) / 1e4;
            let smaller = total as f64 * f64::from(hundredths.min(10_000 - hundredths)) / 1e4;
            // Half an entry, unless there is less than one; or a hundredth.
            prop_assert!(off.abs() <= (smaller / 50.0).max(1.0), "{found:?} {off}");
            prop_assert!(has_canaries > 0 && has_others > 0);
        }
    }
}
