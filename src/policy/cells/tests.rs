//! Tests that cells are even, and that few backends move.

use proptest::prelude::*;

use super::super::hash::hash;
use super::*;

fn backends(names: impl IntoIterator<Item = usize>) -> Vec<Backend> {
    let backend = |at| Backend { id: hash(format!("backend-{at}").as_bytes()), weight: 1 };
    names.into_iter().map(backend).collect()
}

fn moved(before: &Table, after: &Table, pairs: impl Iterator<Item = (usize, usize)>) -> usize {
    pairs.filter(|&(a, b)| before.cells()[a] != after.cells()[b]).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_cell_is_above_its_cap(count in 4..2_000_usize, first in 0..1_000_usize) {
        let all = backends(first..first + count);
        let bits = bits(count, 16, None);
        let table = Table::new(&all, bits, count);
        let due = count as f64 / f64::from(1_u32 << bits);
        for sum in table.sums(|_| 1) {
            prop_assert!((sum as f64) <= (1.1 * due + 1.0).max(due.ceil()), "{} of {}", sum, due);
        }
    }

    #[test]
    fn the_newest_backend_moves_few(count in 128..1_500_usize, first in 0..1_000_usize) {
        let all = backends(first..first + count + 1);
        let bits = bits(count, 32, None);
        let before = Table::new(&all[..count], bits, count + 1);
        let after = Table::new(&all, bits, count + 1);
        // The caps follow the peak, which did not change. The newest backend may take a slot
        // in its home cell from a backend of another home, which then takes another's slot.
        prop_assert!(moved(&before, &after, (0..count).map(|at| (at, at))) <= 3);
        // The oldest leaves.
        let rest = Table::new(&all[1..], bits, count + 1);
        prop_assert!(moved(&after, &rest, (0..count).map(|at| (at + 1, at))) <= 6);
    }
}
