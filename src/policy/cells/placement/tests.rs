//! Tests that the clients' calls are spread, and that every client is served.

use proptest::prelude::*;

use super::super::super::hash::hash;
use super::*;

#[test]
fn a_client_of_great_demand_uses_more_cells() {
    let weights = [40; 8];
    let mut placement = Placement::new(3);
    for client in 0..300 {
        placement.join(hash(&[client as u8, (client >> 8) as u8]), Some(1.0), &weights);
    }
    let great = placement.join(7, Some(30.0), &weights);
    assert_eq!(great.level, 3, "a tenth of all calls goes to all backends");
    assert_eq!(placement.join(8, None, &weights).level, 0);
    placement.report(7, 1.0);
    placement.rebalance(&weights);
    assert_eq!(placement.run(7).unwrap().level, 2, "one step at a time");
    placement.leave(7, &weights);
    assert_eq!(placement.run(7), None);
}

#[test]
fn halves_share_their_lists_while_one_has_lost_its_backends() {
    let mut weights = [40; 4];
    let mut placement = Placement::new(2);
    for client in 0..400_u64 {
        placement.join(pair(client, 1), Some(1.0), &weights);
    }
    // The first clients were all there was, so they had all cells.
    (0..2).for_each(|_| placement.rebalance(&weights));
    let client = pair(0, 1);
    let run = placement.run(client).unwrap();
    weights[run.index as usize] = 28;
    placement.reweigh(&weights);
    assert_eq!(placement.run(client), Some(run.parent()));
    weights[run.index as usize] = 40;
    placement.reweigh(&weights);
    assert_eq!(placement.run(client), Some(run));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Every client has a run with listed backends as long as there are any, and the loads
    /// are those of the clients.
    #[test]
    fn clients_are_always_served(
        steps in proptest::collection::vec((0..40_u64, 0..6_u8, 0.0..100.0_f64), 1..120),
    ) {
        let mut weights = vec![30_u64; 16];
        let mut placement = Placement::new(4);
        for (client, step, demand) in steps {
            match step {
                0 => placement.leave(client, &weights),
                1 => placement.report(client, demand),
                2 => placement.rebalance(&weights),
                3 => {
                    weights[client as usize % 16] = demand as u64;
                    placement.reweigh(&weights);
                }
                _ => {
                    let _ = placement.join(client, Some(demand), &weights);
                },
            }
            let total: f64 = placement.loads.iter().sum();
            prop_assert!((total - placement.demand).abs() < 1e-3 || step == 1);
        }
        placement.rebalance(&weights);
        for client in 0..40 {
            let Some(run) = placement.run(client) else { continue };
            let weight: u64 =
                (0..16).filter(|&cell| run.holds(cell)).map(|cell| weights[cell as usize]).sum();
            prop_assert!(weight > 0 || weights.iter().all(|&weight| weight == 0));
        }
        for bits in [5, 2, 0, 4] {
            placement.resize(bits, &vec![30; 1 << bits]);
            prop_assert!((0..40).all(|client| placement.run(client).is_none_or(|run| run.level <= bits)));
        }
    }
}
