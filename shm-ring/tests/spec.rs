//! The tables of docs/spec/shm.md and the constants say the same.

use std::collections::BTreeMap;

use shm_ring::client_ring::{self, call_slot, client_line, lane_line, service_line};
use shm_ring::layout::{self, Outcome, constants, router_line, slot, worker_line};
use shm_ring::{Geometry, SlotIndex};

const SPEC: &str = include_str!("../../docs/spec/shm.md");

/// `(offset, size)` by field, of the table under a heading.
fn table(heading: &str) -> BTreeMap<&'static str, (usize, usize)> {
    let section =
        SPEC.split("\n### ").find(|section| section.starts_with(heading)).expect("the section exists");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let fields = rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let (offset, size) = (cells.next()?.parse().ok()?, cells.next()?.parse().ok()?);
        Some((cells.next()?, (offset, size)))
    });
    fields.collect()
}

fn check(heading: &str, expected: &[(&'static str, usize, usize)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|&(field, offset, size)| (field, (offset, size))).collect();
    assert_eq!(table(heading), expected, "{heading}");
    let mut end = 0;
    let mut places: Vec<_> = expected.values().copied().collect();
    places.sort_unstable();
    for (offset, size) in places {
        assert!(offset >= end, "{heading}: fields overlap at {offset}");
        end = offset + size;
    }
}

#[test]
fn constants_are_where_the_page_says() {
    check(
        "Constants",
        &[
            ("magic", constants::MAGIC, 8),
            ("version", constants::VERSION, 4),
            ("slot_count", constants::SLOT_COUNT, 4),
            ("generation", constants::GENERATION, 4),
            ("region_size", constants::REGION_SIZE, 4),
            ("memory_size", constants::MEMORY_SIZE, 8),
            ("worker_id", constants::WORKER_ID, 4),
            ("function_id", constants::FUNCTION_ID, 4),
        ],
    );
    assert!(SPEC.contains(&format!(
        "| 0 | 8 | magic | the bytes `{}` |",
        layout::MAGIC.to_le_bytes().escape_ascii()
    )));
    assert!(SPEC.contains(&format!("| 8 | 4 | version | {} |", layout::VERSION)));
}

#[test]
fn lines_are_where_the_page_says() {
    check(
        "Router line",
        &[
            ("submission_tail", router_line::SUBMISSION_TAIL, 4),
            ("completion_head", router_line::COMPLETION_HEAD, 4),
            ("router_sleeping", router_line::ROUTER_SLEEPING, 4),
            ("router_draining", router_line::ROUTER_DRAINING, 4),
            ("wake_count", router_line::WAKE_COUNT, 4),
        ],
    );
    check(
        "Worker line",
        &[
            ("submission_head", worker_line::SUBMISSION_HEAD, 4),
            ("completion_tail", worker_line::COMPLETION_TAIL, 4),
            ("worker_sleeping", worker_line::WORKER_SLEEPING, 4),
            ("waits_for", worker_line::WAITS_FOR, 8),
        ],
    );
}

#[test]
fn slots_are_what_the_page_says() {
    check(
        "Slot, router part",
        &[
            ("router_control", slot::ROUTER_CONTROL, 4),
            ("payload_size", slot::PAYLOAD_SIZE, 4),
            ("invocation_id", slot::INVOCATION_ID, 8),
            ("deadline_at_ns", slot::DEADLINE_AT_NS, 8),
            ("pushed_at_ns", slot::PUSHED_AT_NS, 8),
            ("inline_payload", slot::INLINE_PAYLOAD, slot::INLINE_PAYLOAD_SIZE_MAX),
            ("trace", slot::CONTEXT_TRACE, 32),
            ("idempotency_key", slot::CONTEXT_IDEMPOTENCY_KEY, 16),
        ],
    );
    check(
        "Slot, worker part",
        &[
            ("worker_control", slot::WORKER_CONTROL, 4),
            ("result_size", slot::RESULT_SIZE, 4),
            ("answered_id", slot::ANSWERED_ID, 8),
            ("started_at_ns", slot::STARTED_AT_NS, 8),
            ("finished_at_ns", slot::FINISHED_AT_NS, 8),
            ("inline_result", slot::INLINE_RESULT, slot::INLINE_RESULT_SIZE_MAX),
        ],
    );
}

#[test]
fn client_rings_are_what_the_page_says() {
    check(
        "Client ring constants",
        &[
            ("magic", constants::MAGIC, 8),
            ("version", constants::VERSION, 4),
            ("slot_count", constants::SLOT_COUNT, 4),
            ("generation", constants::GENERATION, 4),
            ("region_size", constants::REGION_SIZE, 4),
            ("memory_size", constants::MEMORY_SIZE, 8),
            ("client_id", client_ring::CLIENT_ID, 4),
        ],
    );
    assert!(SPEC.contains(&format!(
        "| 0 | 8 | magic | the bytes `{}` |",
        client_ring::MAGIC.to_le_bytes().escape_ascii()
    )));
    check(
        "Client line",
        &[
            ("submission_tail", client_line::SUBMISSION_TAIL, 4),
            ("completion_head", client_line::COMPLETION_HEAD, 4),
            ("client_sleeping", client_line::CLIENT_SLEEPING, 4),
        ],
    );
    check(
        "Service line",
        &[
            ("submission_head", service_line::SUBMISSION_HEAD, 4),
            ("completion_tail", service_line::COMPLETION_TAIL, 4),
            ("router_sleeping", service_line::ROUTER_SLEEPING, 4),
            ("router_draining", service_line::ROUTER_DRAINING, 4),
            ("wake_count", service_line::WAKE_COUNT, 4),
        ],
    );
    check(
        "Lane line",
        &[
            ("taken_count", lane_line::TAKEN_COUNT, 4),
            ("running_until_ns", lane_line::RUNNING_UNTIL_NS, 8),
            ("answered_ok", lane_line::ANSWERED_OK, 8),
            ("answered_error", lane_line::ANSWERED_ERROR, 8),
            ("answered_otherwise", lane_line::ANSWERED_OTHERWISE, 8),
            ("run_ns", lane_line::RUN_NS, 8),
        ],
    );
    check(
        "Call slot, client part",
        &[
            ("client_control", call_slot::CLIENT_CONTROL, 4),
            ("payload_size", call_slot::PAYLOAD_SIZE, 4),
            ("call_id", call_slot::CALL_ID, 8),
            ("deadline_at_ns", call_slot::DEADLINE_AT_NS, 8),
            ("function_id", call_slot::FUNCTION_ID, 4),
            ("criticality", call_slot::CRITICALITY, 1),
            ("zero", call_slot::CRITICALITY + 1, 3),
            ("inline_payload", call_slot::INLINE_PAYLOAD, call_slot::INLINE_PAYLOAD_SIZE_MAX),
            ("trace", call_slot::CONTEXT_TRACE, 32),
            ("idempotency_key", call_slot::CONTEXT_IDEMPOTENCY_KEY, 16),
        ],
    );
    check(
        "Call slot, service part",
        &[
            ("service_control", call_slot::SERVICE_CONTROL, 4),
            ("result_size", call_slot::RESULT_SIZE, 4),
            ("answered_id", call_slot::ANSWERED_ID, 8),
            ("retry_after_us", call_slot::RETRY_AFTER_US, 4),
            ("zero", call_slot::RETRY_AFTER_US + 4, 12),
            ("inline_result", call_slot::INLINE_RESULT, call_slot::INLINE_RESULT_SIZE_MAX),
        ],
    );
    let timings = format!(
        "lie at offset {}, and a result lies inline only if it has at most {} bytes",
        call_slot::TIMINGS,
        call_slot::INLINE_RESULT_BESIDE_TIMINGS_SIZE_MAX
    );
    assert!(SPEC.contains(&timings), "{timings}");
    assert!(SPEC.contains(&format!("state ({} ready)", client_ring::READY)));
    assert!(SPEC.contains(&format!("state ({} done)", client_ring::DONE)));
}

#[test]
fn outcomes_are_what_the_page_says() {
    let names = [
        (Outcome::Ok, "ok"),
        (Outcome::FunctionError, "function_error"),
        (Outcome::Expired, "expired"),
        (Outcome::Cancelled, "cancelled"),
        (Outcome::ResultTooLarge, "result_too_large"),
        (Outcome::Backpressure, "backpressure"),
    ];
    for (outcome, name) in names {
        assert!(SPEC.contains(&format!("| {} | {name} |", outcome as u8)), "{name}");
    }
    assert_eq!(Outcome::from_number(names.len() as u8), None, "the page names every outcome");
    let name_size = format!("its name, of 1 to {} bytes", layout::DOWNSTREAM_NAME_SIZE_MAX);
    assert!(SPEC.contains(&name_size), "{name_size}");
}

#[test]
fn the_example_is_computed_right() {
    let geometry = Geometry::new(64, 1 << 20).unwrap();
    let size = geometry.memory_size();
    let grouped = format!("{},{:03},{:03}", size / 1_000_000, size / 1000 % 1000, size % 1000);
    let places = format!(
        "rings at {} and {},\nslots at {}, regions at {}, and {grouped} bytes in all",
        geometry.submission_entry(0),
        geometry.completion_entry(0),
        geometry.slot(SlotIndex(0)),
        geometry.request_region(SlotIndex(0)),
    );
    assert!(SPEC.contains(&places), "{places}");
}

#[test]
fn rules_are_numbered_without_gaps() {
    for number in 1..=69 {
        assert!(SPEC.contains(&format!("S-{number}")), "S-{number}");
    }
}
