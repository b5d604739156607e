use proptest::prelude::*;

use super::*;

fn seen(load: u32, connections: u32) -> Seen {
    Seen { load: Load(load), connections, is_open: true }
}

fn shards(loads: &[u32]) -> Vec<Seen> {
    loads.iter().map(|load| seen(*load, 1)).collect()
}

fn excess_of_first(loads: &[u32]) -> Option<(u8, u32)> {
    excess(0, &shards(loads), &Thresholds::default()).map(|order| (order.target.0, order.load.0))
}

/// The steps other than `Stay` of so many periods with the same loads, each with its period.
fn steps(balance: &mut Balance, loads: &[u32], periods: u32) -> Vec<(u32, Step)> {
    let seen = shards(loads);
    (1..=periods)
        .map(|period| (period, balance.on_period(0, &seen)))
        .filter(|(_, step)| *step != Step::Stay)
        .collect()
}

#[test]
fn half_of_the_difference_goes_from_a_loaded_shard_to_an_idle_one() {
    assert_eq!(excess_of_first(&[1000, 0]), Some((1, 500)));
    assert_eq!(excess_of_first(&[800, 300]), Some((1, 250)));
    assert_eq!(
        excess_of_first(&[1000, 400, 100]),
        Some((2, 400)),
        "to the idlest, and no more than it lacks"
    );
}

#[test]
fn a_shard_with_time_left_keeps_what_it_has() {
    assert_eq!(excess_of_first(&[499, 0]), None);
    assert_eq!(excess_of_first(&[1000, 751]), None, "nor is a small difference one");
    assert_eq!(excess_of_first(&[0, 1000]), None);
    assert_eq!(excess_of_first(&[1000]), None, "there is nobody else");
}

#[test]
fn several_givers_share_what_the_receiver_lacks() {
    let (_, given) = excess_of_first(&[1000, 1000, 0]).expect("an order");
    assert!(2 * given <= 666, "the mean is 666, and twice {given} would come");
}

#[test]
fn a_shard_that_drains_or_is_full_is_given_nothing() {
    let mut seen = shards(&[1000, 0, 100]);
    seen[1].is_open = false;
    let order = excess(0, &seen, &Thresholds::default()).expect("an order");
    assert_eq!(order.target, ShardId(2));
    seen[2].is_open = false;
    assert_eq!(excess(0, &seen, &Thresholds::default()), None);
}

#[test]
fn a_difference_has_to_last_and_a_move_to_show_before_the_next() {
    let mut balance = Balance::new(Thresholds::default());
    let order = Order { target: ShardId(1), load: Load(500), of: Load(1000) };
    let expected = [
        (1, Step::Measure),
        (1 + PATIENCE, Step::Move(order)),
        (1 + PATIENCE + SETTLE, Step::Measure),
        (1 + PATIENCE + SETTLE + PATIENCE, Step::Move(order)),
    ];
    assert_eq!(steps(&mut balance, &[1000, 0], 2 * (PATIENCE + SETTLE)), expected);
}

#[test]
fn a_burst_that_ends_in_time_moves_nothing() {
    let mut balance = Balance::new(Thresholds::default());
    for _ in 0..5 {
        assert_eq!(steps(&mut balance, &[1000, 0], PATIENCE), [(1, Step::Measure)]);
        assert_eq!(steps(&mut balance, &[300, 0], 1), []);
    }
}

fn home(seen: &[Seen]) -> Option<ShardId> {
    Balance::new(Thresholds::default()).home_of_new(0, seen)
}

#[test]
fn a_new_connection_goes_to_the_shard_with_the_fewest() {
    assert_eq!(home(&[seen(0, 1), seen(0, 0)]), Some(ShardId(1)));
    assert_eq!(home(&[seen(0, 1), seen(0, 1)]), None);
    assert_eq!(home(&[seen(0, 0), seen(0, 9)]), None);
    assert_eq!(home(&[seen(0, 5), seen(0, 3), seen(0, 1)]), Some(ShardId(2)));
    assert_eq!(home(&[seen(0, 104), seen(0, 96)]), None, "what chance does is left alone");
    assert_eq!(home(&[seen(0, 120), seen(0, 96)]), Some(ShardId(1)));
}

#[test]
fn a_loaded_shard_is_given_new_connections_only_by_loaded_ones() {
    assert_eq!(home(&[seen(0, 5), seen(900, 0)]), None);
    assert_eq!(home(&[seen(900, 0), seen(100, 5)]), Some(ShardId(1)));
    assert_eq!(home(&[seen(900, 5), seen(900, 0)]), Some(ShardId(1)));
}

#[test]
fn a_full_shard_gives_new_connections_to_one_with_room() {
    let full = Seen { is_open: false, ..seen(0, 10) };
    assert_eq!(home(&[full, seen(900, 9)]), Some(ShardId(1)));
    assert_eq!(home(&[full, full]), None, "told here that there are too many");
    assert_eq!(home(&[seen(0, 10), Seen { is_open: false, ..seen(0, 0) }]), None);
}

#[test]
fn the_heaviest_that_fit_are_picked_and_one_that_is_everything_stays() {
    let check = |weights: &[u64], load, expected: &[u32]| {
        let mut candidates: Vec<_> =
            weights.iter().zip(0..).map(|(weight, index)| Candidate { index, weight: *weight }).collect();
        let order = Order { target: ShardId(1), load: Load(load), of: Load(1000) };
        let picked: Vec<_> = pick(&order, &mut candidates, weights.iter().sum()).collect();
        assert_eq!(picked, expected, "{weights:?}");
    };
    check(&[10], 500, &[]);
    check(&[10, 10], 500, &[0]);
    check(&[10, 10, 10], 500, &[0]);
    // Not the one of 60, which is more than may go, and not the idle one.
    check(&[60, 30, 10, 0], 400, &[1, 2]);
    check(&[1; 100], 500, &(0..MOVES_MAX as u32).collect::<Vec<_>>());
}

proptest! {
    /// Shards with random connections come to rest, and a shard that was idler than another is not made busier than
    /// that one was.
    #[test]
    fn random_shards_come_to_rest_and_no_two_change_places(
        shard_count in 2usize..9,
        connections in prop::collection::vec((0usize..9, 1u32..400), 1..60),
    ) {
        let mut homes: Vec<(usize, u32)> =
            connections.into_iter().map(|(home, weight)| (home % shard_count, weight)).collect();
        let mut balances: Vec<_> = (0..shard_count).map(|_| Balance::new(Thresholds::default())).collect();
        let mut quiet_periods = 0;
        let mut periods = 0;
        while quiet_periods <= 2 * (PATIENCE + SETTLE) {
            periods += 1;
            prop_assert!(periods < 4000, "they never come to rest: {homes:?}");
            let before = loads(&homes, shard_count);
            // What a thread can show is cut at its whole time.
            let seen: Vec<_> = before.iter().map(|load| seen((*load).min(1000), 0)).collect();
            let moves: Vec<_> = (0..shard_count).flat_map(|own| moves(&mut balances[own], own, &seen, &homes)).collect();
            quiet_periods = if moves.is_empty() { quiet_periods + 1 } else { 0 };
            for (index, target) in moves {
                homes[index as usize].0 = target;
            }
            let busiest = before.iter().max();
            if busiest <= Some(&1000) {
                prop_assert!(loads(&homes, shard_count).iter().max() <= busiest);
            }
        }
    }
}

fn loads(homes: &[(usize, u32)], shard_count: usize) -> Vec<u32> {
    let mut loads = vec![0; shard_count];
    homes.iter().for_each(|(home, weight)| loads[*home] += weight);
    loads
}

/// What `own` gives away in this period: connections, and where each goes.
fn moves(balance: &mut Balance, own: usize, seen: &[Seen], homes: &[(usize, u32)]) -> Vec<(u32, usize)> {
    let Step::Move(order) = balance.on_period(own, seen) else { return Vec::new() };
    let ours = homes.iter().zip(0..).filter(|((home, _), _)| *home == own);
    let mut candidates: Vec<_> =
        ours.map(|((_, weight), index)| Candidate { index, weight: u64::from(*weight) }).collect();
    let total = candidates.iter().map(|candidate| candidate.weight).sum();
    pick(&order, &mut candidates, total).map(|index| (index, usize::from(order.target.0))).collect()
}
