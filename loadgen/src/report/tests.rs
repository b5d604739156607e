//! The report's three forms, from a run that is made up.

use super::*;
use crate::plan::Arrivals;
use crate::schedule::Lateness;
use crate::tally::{Answered, Tally, Unanswered};

const MS: u64 = 1_000_000;

/// A second of an open loop: a thousand results between 10 us and 1 ms, and a few of each misfortune.
pub(crate) fn report() -> Report {
    let plan = Plan {
        function: "echo<&>".into(),
        workload: Workload::Open { rate: 1_000.0, arrivals: Arrivals::Poisson },
        duration: std::time::Duration::from_secs(1),
        seed: 42,
        ..Plan::default()
    };
    let mut tally = Tally::new(plan.workload, 1_000 * MS);
    for index in 0..1_000u64 {
        tally.advance(index * MS);
        tally.count_sent(1);
        let sent_at_ns = index * MS;
        let answered = Answered { intended_at_ns: sent_at_ns, sent_at_ns, status: 0, matches: true };
        tally.count_answer(sent_at_ns + 10_000 + index * 990, answered);
    }
    tally.count_answer(2, Answered { intended_at_ns: 0, sent_at_ns: 0, status: 17, matches: true });
    tally.count_unanswered(Unanswered::NoAnswer, 3);
    tally.advance(1_000 * MS);
    Report::new(
        &plan,
        Outcome {
            tally,
            lateness: Lateness { late: 5, late_held: 2, delay_ns_max: 300_000 },
            elapsed_ns: 1_001 * MS,
            sending_ns: 1_000 * MS,
            cpu_ns: 900 * MS,
            idle_ns: 300 * MS,
            slot_count: 1_024,
        },
    )
}

#[test]
fn json_has_the_promised_fields() {
    let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
    assert_eq!(json["calls_per_s"].as_f64().map(f64::round), Some(1_000.0));
    for field in ["min", "mean", "p50", "p90", "p99", "p99_9", "p99_99", "max"] {
        assert!(json["latency_ns"][field].is_number(), "{field}");
        assert!(json["latency_uncorrected_ns"][field].is_number(), "{field}");
    }
    let p50 = json["latency_ns"]["p50"].as_u64().unwrap();
    assert!(p50.abs_diff(505_000) < 5_000, "{p50}");
    assert_eq!(json["errors"], serde_json::json!({ "queue_full": 1, "no_answer": 3 }));
    assert_eq!(json["late_sends"], 5);
    assert_eq!(
        (&json["sent"], &json["answered"], &json["mismatched"]),
        (&1_000.into(), &1_001.into(), &0.into())
    );
    assert_eq!(json["seed"], 42);
    assert_eq!(json["plan"]["function"], "echo<&>");
    assert_eq!(json["plan"]["workload"], "open");
    assert!(json["generator"]["cpu_percent"].is_number());
    assert_eq!(json["generator"]["was_limit"], true);
    assert!(json["generator"]["why"].is_string());
}

#[test]
fn html_needs_nothing_but_itself() {
    let html = report().to_html();
    for outside in ["http://", "https://", "<script", "<link", "@import", "url(", " src="] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("<svg").count(), 3);
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.contains("echo&lt;&amp;&gt;"), "names are escaped");
    assert!(!html.contains("NaN"));
    assert!(!html.contains("inf,"));
}

#[test]
fn text_shows_percentiles_errors_and_the_verdict() {
    let text = report().to_text();
    for expected in [
        "calls/s",
        "p99.9",
        "queue full",
        "no answer",
        "late sends",
        "THE GENERATOR WAS THE LIMIT",
        "seed 42",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn a_run_without_results_still_has_a_report() {
    let outcome = Outcome {
        tally: Tally::new(Plan::default().workload, MS),
        lateness: Lateness::default(),
        elapsed_ns: 0,
        sending_ns: 0,
        cpu_ns: 0,
        idle_ns: 0,
        slot_count: 16,
    };
    let report = Report::new(&Plan::default(), outcome);
    assert_eq!(report.calls_per_s, 0.0);
    assert!(report.to_text().contains("no results"));
    assert!(report.to_text().contains("window 64 (of which the router granted 16)"));
    assert!(!report.to_html().contains("NaN"));
    assert!(report.to_json().contains("\"errors\": {}"));
}

#[test]
fn figures_are_shown_in_readable_units() {
    assert_eq!(show_count(0), "0");
    assert_eq!(show_count(1_234_567), "1,234,567");
    assert_eq!(show_ns(999), "999 ns");
    assert_eq!(show_ns(12_345), "12.3 us");
    assert_eq!(show_ns(2_500_000), "2.50 ms");
    assert_eq!(show_ns(1_500_000_000), "1.50 s");
}
