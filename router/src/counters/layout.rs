//! Where every number of a counters file lies. The normative text is docs/spec/counters.md; its tables are written
//! from the columns below, and a test compares them.
//!
//! ```text
//! 0      header, 256 bytes: magic, version, who writes, where the sections are
//! 192    ... its last line: the sequence number and the time of the last publishing, written every time
//! 256    labels      one row of 256 bytes for each column of the sections below
//!        shard       one row: everything the engine and the shard count
//!        functions   a row for each function that there can be, those that there are first
//!        workers     a row for each place a worker can have
//!        histograms  a row for each latency
//! ```
//! Always: little endian, every number a u64 at a multiple of 8, sections and rows multiples of 64.

use engine::counters::COUNTER_TABLE;
use engine::limits::DOWNSTREAMS_MAX;
use protocol::DOWNSTREAM_NAME_SIZE_MAX;

use crate::stats::ShardCounters;

use super::buckets;

/// "QFCOUNT1" as the bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"QFCOUNT1");
/// Raised when an old reader would misread; new columns need no new version.
pub const VERSION: u64 = 1;
/// Bytes of the header.
pub const HEADER_SIZE: usize = 256;
/// Bytes of a row of labels.
pub const LABEL_SIZE: usize = 256;
/// Sections start and rows end on processor cache lines.
pub const ALIGN: usize = 64;
/// Bytes of a name inside a row.
pub const NAME_SIZE: usize = 128;

/// Offsets in the header.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 8;
    /// Bytes of the whole file.
    pub const FILE_SIZE: usize = 16;
    /// Process id of the router.
    pub const PID: usize = 24;
    /// Which shard.
    pub const SHARD: usize = 32;
    /// When the router started, CLOCK_MONOTONIC in ns, as all times in the file.
    pub const STARTED_AT: usize = 40;
    /// The same moment as Unix time in ns.
    pub const STARTED_AT_UNIX: usize = 48;
    /// What shim and router agree on (`Config::digest`).
    pub const CONFIG_DIGEST: usize = 56;
    /// Five sections of four numbers: offset, row size, row count, 0; in the order of [`super::Section`].
    pub const SECTIONS: usize = 64;
    /// Odd while the shard writes; every publishing adds 2.
    pub const SEQUENCE: usize = 224;
    /// When the shard last published.
    pub const PUBLISHED_AT: usize = 232;
    /// 1 running, 2 stopped in good order.
    pub const STATE: usize = 240;
    /// The processor the shard is pinned to, and 1; 0: none.
    pub const PINNED_TO: usize = 248;
}

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What every column is called.
    Labels = 0,
    /// One row of everything counted.
    Shard = 1,
    /// A row for each function that there can be; the name of one that there is not yet is empty.
    Functions = 2,
    /// A row for each place a worker can have.
    Workers = 3,
    /// A row for each latency.
    Histograms = 4,
}

/// Sections in the order of the header.
pub const SECTIONS: [Section; 5] =
    [Section::Labels, Section::Shard, Section::Functions, Section::Workers, Section::Histograms];

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// One u64.
    Number = 1,
    /// UTF-8, the rest zero.
    Text = 2,
    /// u64 after u64.
    Numbers = 3,
}

/// One column of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Whose rows have it.
    pub section: Section,
    /// Its type.
    pub kind: ColumnType,
    /// Where in the row.
    pub offset: usize,
    /// Bytes in the row.
    pub size: usize,
    /// Its name, at most 48 bytes.
    pub name: String,
    /// `count`, `bytes`, `ns` and so on, at most 16 bytes.
    pub unit: &'static str,
    /// One sentence, at most 160 bytes.
    pub meaning: &'static str,
}

/// Offsets in a row of labels.
pub mod label {
    /// [`super::Section`] as a number.
    pub const SECTION: usize = 0;
    /// [`super::ColumnType`] as a number.
    pub const KIND: usize = 8;
    /// Where in the row.
    pub const OFFSET: usize = 16;
    /// Bytes in the row.
    pub const SIZE: usize = 24;
    /// Text of 48 bytes.
    pub const NAME: usize = 32;
    /// Text of 16 bytes.
    pub const UNIT: usize = 80;
    /// Text of 160 bytes.
    pub const MEANING: usize = 96;
}

/// Numbers of a function, behind its name, in this order.
pub const FUNCTION_NUMBERS: &[(&str, &str, &str)] = &[
    ("function_id", "id", "The function's number on the wire."),
    ("workers", "count", "Workers attached."),
    ("workers_with_credit", "count", "Workers that could take a call at once."),
    ("credit_free", "count", "Free slots of all its workers."),
    ("queued", "count", "Calls that wait for a worker."),
    ("running", "count", "Calls in workers' rings."),
    ("oldest_queued_at_ns", "ns", "Since when the oldest waiting call waits, CLOCK_MONOTONIC; 0 for none."),
    ("is_failing", "flag", "1 while its processes keep failing."),
    ("answered_ok", "count", "Calls answered with the function's result."),
    ("answered_error", "count", "Calls answered with the function's own error."),
    ("answered_otherwise", "count", "Calls that ended otherwise: expired, cancelled, worker lost and so on."),
    ("run_ns", "ns", "Sum of the run times."),
    ("blocked_on", "cause", "What its waiting calls wait for, by number; see the specification."),
    (
        "blocked_since_ns",
        "ns",
        "The first look that found this cause, CLOCK_MONOTONIC; 0 while nothing blocks.",
    ),
    ("workers_wanted", "count", "Workers that are to be kept."),
    (
        "workers_earlier",
        "count",
        "Workers attached whose program, environment or ring is not what the function is by now.",
    ),
    ("is_removed", "flag", "1 while the configuration does not name it: it admits nothing."),
    ("workers_min", "count", "Workers that are kept whether anybody calls or not: `warm`."),
    ("workers_max", "count", "Workers that there may be: `warm_max`, or `warm` where that is no less."),
    ("cold_starts", "count", "Workers that attached after calls had asked for them."),
    ("cold_start_last_ns", "ns", "How long the last of them took, from being asked for to attaching."),
    ("cold_start_max_ns", "ns", "The longest that one of them took."),
    ("calls_held_for_start", "count", "Calls that waited when one of them was the first to serve."),
    (
        "answered_peak",
        "count",
        "Answers of the function itself, results and errors, in its busiest ten seconds.",
    ),
];

/// What has pushed a function back, one after the other behind its numbers: a name, and numbers in this order.
pub const DOWNSTREAM_NUMBERS: &[(&str, &str, &str)] = &[
    (
        "per_second",
        "calls/s",
        "How often the function is called at most on this account; 0: it does not limit.",
    ),
    ("refusals", "count", "Refusals that the function told of since it first named this."),
];

/// Bytes for one of them.
pub const DOWNSTREAM_SIZE: usize = DOWNSTREAM_NAME_SIZE_MAX + DOWNSTREAM_NUMBERS.len() * 8;

/// Where the first of them begins in the row of a function.
pub const DOWNSTREAMS_AFTER_NUMBERS: usize = NUMBERS_AFTER_NAME + FUNCTION_NUMBERS.len() * 8;

/// Numbers of a worker, in this order.
pub const WORKER_NUMBERS: &[(&str, &str, &str)] = &[
    (
        "is_attached",
        "flag",
        "1 while a worker has this place; 0: the rest of the row is about a former one, or nothing.",
    ),
    (
        "worker_id",
        "id",
        "Its place in the shard's engine, and the worker_id in its ring's constants (docs/spec/shm.md).",
    ),
    ("generation", "id", "Which use of the place, and the generation in its ring's constants."),
    ("function_id", "id", "The function it runs."),
    (
        "pid",
        "id",
        "Its process: its ring is one of the memfds under /proc/PID/fd, also when the router is dead.",
    ),
    ("attached_at_ns", "ns", "When it attached, CLOCK_MONOTONIC."),
    ("slots", "count", "Calls its ring holds at most."),
    ("credits_free", "count", "Free slots of its ring."),
];

/// Numbers of a latency, behind its name, in this order; the buckets follow.
pub const HISTOGRAM_NUMBERS: &[(&str, &str, &str)] = &[
    ("count", "count", "Calls measured."),
    ("min_ns", "ns", "The shortest; 0 if none."),
    ("max_ns", "ns", "The longest."),
];

/// What is measured, in the order of the rows.
pub const HISTOGRAMS: [&str; 3] = ["total_ns", "queue_wait_ns", "run_ns"];

/// Offset of the first number in a row that starts with a name.
pub const NUMBERS_AFTER_NAME: usize = NAME_SIZE;
/// Offset of the buckets in a row of a latency: the name, three numbers, filled up.
pub const BUCKETS: usize = 192;

/// Every column of the file, in the order of the rows of labels.
pub fn columns() -> Vec<Column> {
    let mut columns = Vec::new();
    let engine = COUNTER_TABLE.iter().map(|row| (format!("engine.{}", row.name), row.unit, row.meaning));
    let shard = ShardCounters::TABLE.iter().map(|row| (format!("shard.{}", row.name), row.unit, row.meaning));
    // The shard starts anew with every publishing, and nobody looks at all of them.
    let longest = ("shard.turn_ns_max_ever".to_owned(), "ns", "The longest turn since the start.");
    numbers(&mut columns, Section::Shard, 0, engine.chain(shard).chain([longest]));

    let name = |section, meaning| Column {
        section,
        kind: ColumnType::Text,
        offset: 0,
        size: NAME_SIZE,
        name: "name".into(),
        unit: "text",
        meaning,
    };
    let named = |row: &(&str, &'static str, &'static str)| (row.0.to_owned(), row.1, row.2);
    columns.push(name(Section::Functions, "The function's name."));
    numbers(&mut columns, Section::Functions, NUMBERS_AFTER_NAME, FUNCTION_NUMBERS.iter().map(named));
    for index in 0..DOWNSTREAMS_MAX {
        let offset = DOWNSTREAMS_AFTER_NUMBERS + index * DOWNSTREAM_SIZE;
        columns.push(Column {
            section: Section::Functions,
            kind: ColumnType::Text,
            offset,
            size: DOWNSTREAM_NAME_SIZE_MAX,
            name: format!("downstream_{index}"),
            unit: "text",
            meaning: "The name of something that has pushed the function back; empty: of nothing.",
        });
        let of_it =
            DOWNSTREAM_NUMBERS.iter().map(|row| (format!("downstream_{index}_{}", row.0), row.1, row.2));
        numbers(&mut columns, Section::Functions, offset + DOWNSTREAM_NAME_SIZE_MAX, of_it);
    }
    numbers(&mut columns, Section::Workers, 0, WORKER_NUMBERS.iter().map(named));
    columns.push(name(Section::Histograms, "What is measured."));
    numbers(&mut columns, Section::Histograms, NUMBERS_AFTER_NAME, HISTOGRAM_NUMBERS.iter().map(named));
    columns.push(Column {
        section: Section::Histograms,
        kind: ColumnType::Numbers,
        offset: BUCKETS,
        size: buckets::COUNT * 8,
        name: "buckets".into(),
        unit: "count",
        meaning: "Calls by latency v: bucket v below 32, else 32 * (floor(log2 v) - 4) + (v >> (floor(log2 v) - 5)) mod 32; see the specification.",
    });
    columns
}

fn numbers(
    columns: &mut Vec<Column>,
    section: Section,
    start: usize,
    rows: impl Iterator<Item = (String, &'static str, &'static str)>,
) {
    columns.extend(rows.enumerate().map(|(index, (name, unit, meaning))| Column {
        section,
        kind: ColumnType::Number,
        offset: start + index * 8,
        size: 8,
        name,
        unit,
        meaning,
    }));
}

/// Where a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionPlace {
    /// From the start of the file.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub row_size: usize,
    /// Rows.
    pub row_count: usize,
}

impl SectionPlace {
    /// Where a row begins.
    pub fn row(self, index: usize) -> usize {
        assert!(index < self.row_count, "row {index} of {}", self.row_count);
        self.offset + index * self.row_size
    }

    /// Where the section ends.
    pub fn end(self) -> usize {
        self.offset + self.row_size * self.row_count
    }
}

/// The places of all sections of a file that is to be made, and its size.
pub fn arrange(columns: &[Column], functions_max: usize, workers_max: usize) -> ([SectionPlace; 5], usize) {
    let mut end = HEADER_SIZE;
    let places = SECTIONS.map(|section| {
        let row_count = match section {
            Section::Labels => columns.len(),
            Section::Shard => 1,
            Section::Functions => functions_max,
            Section::Workers => workers_max,
            Section::Histograms => HISTOGRAMS.len(),
        };
        let in_section = columns.iter().filter(|column| column.section == section);
        let row_size = match section {
            Section::Labels => LABEL_SIZE,
            _ => in_section
                .map(|column| column.offset + column.size)
                .max()
                .unwrap_or(0)
                .next_multiple_of(ALIGN),
        };
        let place = SectionPlace { offset: end, row_size, row_count };
        end = place.end();
        place
    });
    (places, end)
}

const _: () = assert!(header::SECTIONS + SECTIONS.len() * 32 <= header::SEQUENCE);
const _: () = assert!(header::PINNED_TO + 8 <= HEADER_SIZE);
const _: () = assert!(label::MEANING + 160 == LABEL_SIZE);
const _: () = assert!(NUMBERS_AFTER_NAME + HISTOGRAM_NUMBERS.len() * 8 <= BUCKETS);
