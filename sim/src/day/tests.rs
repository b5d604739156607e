use super::*;

const SMALL: Scale = Scale { worker_count: 20, function_count: 60, tenant_count: 10 };

#[test]
fn order_keeps_what_matters_in_time_and_a_quota_moves_work_from_noon_into_the_night() {
    let [fifo, ordered, opportunistic] = Order::ALL.map(|order| run(order, SMALL, 1));
    // Expect the same calls in all three.
    assert_eq!(fifo.call_count(), ordered.call_count());
    assert_eq!(fifo.call_count(), opportunistic.call_count());
    // More is asked for at noon than there is: who does not order, misses deadlines of everybody.
    let critical = 3;
    assert!(fifo.missed()[critical] > 0.1, "{:?}", fifo.missed());
    assert!(ordered.missed()[critical] < 0.01, "{:?}", ordered.missed());
    // What may wait is done at night: more of it in all, on a host that is used more evenly; nothing that matters pays for it.
    assert!(opportunistic.useful() > ordered.useful());
    let (peak, ordered_peak) = (opportunistic.peak_to_trough(), ordered.peak_to_trough());
    assert!(peak < 0.7 * ordered_peak, "{peak} instead of {ordered_peak}");
    assert!(opportunistic.missed()[critical] < 0.01, "{:?}", opportunistic.missed());
    // And some processors are left for what comes suddenly, at the busiest time too.
    let noon = opportunistic.utilisation()[SLOT_COUNT / 2];
    assert!(noon < 0.9, "{noon}");
}

#[test]
fn the_same_seed_gives_the_same_day() {
    let row = |seed| run(Order::CriticalityDeadline, SMALL, seed).row("");
    assert_eq!(row(3), row(3));
    assert_ne!(row(3), row(4));
}

#[test]
fn demand_has_the_peak_and_the_trough_it_says() {
    let noon = demand_at(DAY_NS / 2);
    assert!((noon / demand_at(0) - PEAK_TO_TROUGH).abs() < 1e-9);
    let mean: f64 = (0..1_000).map(|part| demand_at(DAY_NS / 1_000 * part)).sum::<f64>() / 1_000.0;
    assert!((mean - 1.0).abs() < 1e-3);
}

#[test]
fn the_page_names_the_command_and_shows_its_drawing() {
    let page = include_str!("../../../docs/simulation.md");
    assert!(page.contains("cargo run --release -p sim -- --day docs/simulation-day.svg"));
    assert!(page.contains("](simulation-day.svg)"));
    let drawing = include_str!("../../../docs/simulation-day.svg");
    for order in Order::ALL {
        let name = order.name();
        assert!(page.contains(&format!("\n| {name} | ")), "the page has no row for {name}");
        assert!(drawing.contains(&format!("<title>{name}</title>")), "the drawing has no line for {name}");
    }
}
