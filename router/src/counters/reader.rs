//! The reading side: `quickfire inspect`, `quickfire functions`, tests, and whoever follows docs/spec/counters.md.
//!
//! In: a file of anybody: of a router that works, of one that died in the middle of a publishing, or no counters at all.
//! Out: a [`Snapshot`], or what is wrong with the file.
//! Always: numbers are found through the labels of the file itself, as a stranger would, so that files of other
//! versions stay readable; every offset is checked against the file's size.
//! Never: maps the file. Reading it costs a copy, and a file that shrinks meanwhile costs an error, not a SIGBUS.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use super::buckets;
use super::layout::{self, LABEL_SIZE, Section, SectionPlace, header, label};

/// One publishing of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which shard.
    pub shard: u32,
    /// The router's process.
    pub pid: u32,
    /// When it started, Unix time in nanoseconds.
    pub started_at_unix_ns: u64,
    /// When it started, CLOCK_MONOTONIC.
    pub started_at_ns: u64,
    /// When the shard last published, CLOCK_MONOTONIC.
    pub published_at_ns: u64,
    /// What shim and router agree on.
    pub config_digest: u64,
    /// The processor the shard is pinned to.
    pub pinned_to: Option<u32>,
    /// `running` (also of a router that was killed), `stopped` in good order, or `unknown`.
    pub state: &'static str,
    /// The writer was in the middle of a publishing, and stayed there: numbers may be from two of them.
    pub is_torn: bool,
    /// Everything counted, in the order of the file.
    pub counters: Vec<Named>,
    /// By id; also those that were removed.
    pub functions: Vec<Function>,
    /// Those that are attached.
    pub workers: Vec<Worker>,
    /// Latencies.
    pub histograms: Vec<Histogram>,
}

/// A counter with what the file says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// One sentence.
    pub meaning: String,
    /// Its value.
    pub value: u64,
}

/// A function as its shard sees it; docs/spec/counters.md has the meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns of the specification")]
pub struct Function {
    pub name: String,
    pub function_id: u64,
    pub workers: u64,
    pub workers_with_credit: u64,
    pub credit_free: u64,
    pub queued: u64,
    pub running: u64,
    pub oldest_queued_at_ns: u64,
    pub is_failing: bool,
    pub answered_ok: u64,
    pub answered_error: u64,
    pub answered_otherwise: u64,
    pub run_ns: u64,
    pub blocked_on: u64,
    pub blocked_since_ns: u64,
    pub workers_wanted: u64,
    pub workers_earlier: u64,
    pub is_removed: bool,
    pub workers_min: u64,
    pub workers_max: u64,
    pub cold_starts: u64,
    pub cold_start_last_ns: u64,
    pub cold_start_max_ns: u64,
    pub calls_held_for_start: u64,
    pub answered_peak: u64,
    pub downstreams: Vec<Downstream>,
}

/// Something that has pushed a function back; docs/spec/counters.md has the meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns of the specification")]
pub struct Downstream {
    pub name: String,
    pub per_second: u64,
    pub refusals: u64,
}

/// An attached worker; docs/spec/counters.md has the meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns of the specification")]
pub struct Worker {
    pub worker_id: u64,
    pub generation: u64,
    pub function_id: u64,
    pub pid: u64,
    pub attached_at_ns: u64,
    pub slots: u64,
    pub credits_free: u64,
}

/// A latency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// What was measured.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How often in each bucket (`counters::buckets`).
    pub buckets: Vec<u64>,
}

/// Why a file gives no counters.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// The kernel said no.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What came back.
        error: std::io::Error,
    },
    /// Another kind of file, or one that is just being made.
    #[error("not a counters file (it starts with {found:#018x})")]
    NotCounters {
        /// Its first eight bytes.
        found: u64,
    },
    /// Written by another version whose header means something else.
    #[error("counters of version {found}; this program reads version {}", layout::VERSION)]
    UnknownVersion {
        /// As in the file.
        found: u64,
    },
    /// A part lies outside.
    #[error(
        "the counters file is damaged: {part} at {offset}, {size} bytes, ends behind the file's {file_size}"
    )]
    OutsideFile {
        /// Which part.
        part: &'static str,
        /// Where it should begin.
        offset: u64,
        /// How large it should be.
        size: u64,
        /// Where the file ends.
        file_size: u64,
    },
}

/// Larger than any file that could be made: 16,384 functions of 512 bytes, 4096 workers of 64.
const FILE_SIZE_MAX: u64 = 16 << 20;
/// A publishing takes microseconds; a reader that was unlucky this often looks at a dead writer.
const READS_MAX: usize = 100;

impl Snapshot {
    /// Reads a file, again and again until it holds still. A dead writer's unfinished publishing is given as it is.
    pub fn read(path: &Path) -> Result<Snapshot, CountersError> {
        let io = |error| CountersError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        let mut bytes = Vec::new();
        for _ in 0..READS_MAX {
            let size = file.metadata().map_err(io)?.len().min(FILE_SIZE_MAX) as usize;
            bytes.resize(size, 0);
            let before = sequence_of(&file);
            fence(Ordering::SeqCst);
            file.read_exact_at(&mut bytes, 0).map_err(io)?;
            fence(Ordering::SeqCst);
            let after = sequence_of(&file);
            if before == after && before.is_some_and(|sequence| sequence.is_multiple_of(2)) {
                return Snapshot::decode(&bytes);
            }
            std::thread::yield_now();
        }
        Snapshot::decode(&bytes).map(|snapshot| Snapshot { is_torn: true, ..snapshot })
    }

    /// Makes sense of the bytes of a file, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot, CountersError> {
        let image = Image(bytes);
        image.part("header", 0, layout::HEADER_SIZE as u64)?;
        let found = image.number(header::MAGIC);
        if found != layout::MAGIC {
            return Err(CountersError::NotCounters { found });
        }
        let found = image.number(header::VERSION);
        if found != layout::VERSION {
            return Err(CountersError::UnknownVersion { found });
        }
        let labels = image.labels()?;
        let table = |section| image.table(section, &labels);
        let workers = table(Section::Workers)?;
        let attached = workers.rows().filter(|row| row.get("is_attached") == 1);
        Ok(Snapshot {
            shard: image.number(header::SHARD) as u32,
            pid: image.number(header::PID) as u32,
            started_at_unix_ns: image.number(header::STARTED_AT_UNIX),
            started_at_ns: image.number(header::STARTED_AT),
            published_at_ns: image.number(header::PUBLISHED_AT),
            config_digest: image.number(header::CONFIG_DIGEST),
            pinned_to: image.number(header::PINNED_TO).checked_sub(1).and_then(|it| u32::try_from(it).ok()),
            state: match image.number(header::STATE) {
                1 => "running",
                2 => "stopped",
                _ => "unknown",
            },
            is_torn: !image.number(header::SEQUENCE).is_multiple_of(2),
            counters: table(Section::Shard)?.rows().next().map(|row| row.named()).unwrap_or_default(),
            functions: table(Section::Functions)?.rows().map_while(|row| row.named_function()).collect(),
            workers: attached.map(|row| row.worker()).collect(),
            histograms: table(Section::Histograms)?.rows().map(|row| row.histogram()).collect(),
        })
    }

    /// A counter by its name, `engine.calls_received`.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|counter| counter.name == name).map(|counter| counter.value)
    }
}

impl Histogram {
    /// The latency that `share` of the calls did not exceed, 0.99 for p99; never above the longest.
    pub fn percentile_ns(&self, share: f64) -> u64 {
        let total: u64 = self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0u64;
        for (index, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= wanted {
                return buckets::upper_bound(index).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// Adds another shard's calls of the same kind.
    pub fn add(&mut self, other: &Histogram) {
        let is_first = self.count == 0;
        self.count = self.count.saturating_add(other.count);
        self.max_ns = self.max_ns.max(other.max_ns);
        if other.count > 0 {
            self.min_ns = if is_first { other.min_ns } else { self.min_ns.min(other.min_ns) };
        }
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.saturating_add(*count);
        }
    }
}

fn sequence_of(file: &File) -> Option<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, header::SEQUENCE as u64).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// A column as the file describes it.
struct Label {
    section: u64,
    offset: usize,
    size: usize,
    name: String,
    unit: String,
    meaning: String,
}

/// The bytes of a file. Nothing outside is ever touched: it reads as zero, or is an error where that would mislead.
struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn part(&self, part: &'static str, offset: u64, size: u64) -> Result<(), CountersError> {
        let file_size = self.0.len() as u64;
        match offset.checked_add(size) {
            Some(end) if end <= file_size => Ok(()),
            _ => Err(CountersError::OutsideFile { part, offset, size, file_size }),
        }
    }

    fn number(&self, offset: usize) -> u64 {
        let bytes = offset.checked_add(8).and_then(|end| self.0.get(offset..end));
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn text(&self, offset: usize, size: usize) -> String {
        let bytes = offset.checked_add(size).and_then(|end| self.0.get(offset..end)).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    fn place(&self, section: Section) -> Result<SectionPlace, CountersError> {
        let at = header::SECTIONS + section as usize * 32;
        let (offset, row_size, row_count) = (self.number(at), self.number(at + 8), self.number(at + 16));
        // Rows of no bytes would let a small file hold endless ones.
        let size = row_size.max(layout::ALIGN as u64).saturating_mul(row_count);
        self.part("a section", offset, size)?;
        Ok(SectionPlace {
            offset: offset as usize,
            row_size: row_size as usize,
            row_count: row_count as usize,
        })
    }

    fn labels(&self) -> Result<Vec<Label>, CountersError> {
        let place = self.place(Section::Labels)?;
        let rows = (0..place.row_count).map(|index| place.row(index));
        rows.map(|row| {
            self.part("a label", row as u64, LABEL_SIZE as u64)?;
            Ok(Label {
                section: self.number(row + label::SECTION),
                offset: self.number(row + label::OFFSET) as usize,
                size: self.number(row + label::SIZE) as usize,
                name: self.text(row + label::NAME, label::UNIT - label::NAME),
                unit: self.text(row + label::UNIT, label::MEANING - label::UNIT),
                meaning: self.text(row + label::MEANING, LABEL_SIZE - label::MEANING),
            })
        })
        .collect()
    }

    fn table<'a>(&'a self, section: Section, labels: &'a [Label]) -> Result<Table<'a>, CountersError> {
        let place = self.place(section)?;
        let columns: Vec<_> = labels.iter().filter(|label| label.section == section as u64).collect();
        for column in &columns {
            let end = column.offset.checked_add(column.size);
            if end.is_none_or(|end| end > place.row_size) {
                let (offset, size) = (column.offset as u64, column.size as u64);
                let file_size = self.0.len() as u64;
                return Err(CountersError::OutsideFile {
                    part: "a column of a row",
                    offset,
                    size,
                    file_size,
                });
            }
        }
        Ok(Table { image: self, place, columns })
    }
}

/// A section with its columns.
struct Table<'a> {
    image: &'a Image<'a>,
    place: SectionPlace,
    columns: Vec<&'a Label>,
}

impl Table<'_> {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.place.row_count).map(|index| Row { table: self, start: self.place.row(index) })
    }

    fn column(&self, name: &str) -> Option<&Label> {
        self.columns.iter().find(|column| column.name == name).copied()
    }
}

/// One row of a section.
struct Row<'a> {
    table: &'a Table<'a>,
    start: usize,
}

impl Row<'_> {
    /// A number; 0 where the file has no such column.
    fn get(&self, name: &str) -> u64 {
        self.table.column(name).map_or(0, |column| self.table.image.number(self.start + column.offset))
    }

    fn name(&self) -> String {
        self.text("name")
    }

    /// A text; empty where the file has no such column.
    fn text(&self, name: &str) -> String {
        let column = self.table.column(name);
        column
            .map_or_else(String::new, |column| self.table.image.text(self.start + column.offset, column.size))
    }

    fn named(&self) -> Vec<Named> {
        let named = |column: &&Label| Named {
            name: column.name.clone(),
            unit: column.unit.clone(),
            meaning: column.meaning.clone(),
            value: self.table.image.number(self.start + column.offset),
        };
        self.table.columns.iter().map(named).collect()
    }

    /// None: no function is here yet, nor in any row behind.
    fn named_function(&self) -> Option<Function> {
        Some(self.name()).filter(|name| !name.is_empty()).map(|name| self.function(name))
    }

    fn function(&self, name: String) -> Function {
        Function {
            name,
            function_id: self.get("function_id"),
            workers: self.get("workers"),
            workers_with_credit: self.get("workers_with_credit"),
            credit_free: self.get("credit_free"),
            queued: self.get("queued"),
            running: self.get("running"),
            oldest_queued_at_ns: self.get("oldest_queued_at_ns"),
            is_failing: self.get("is_failing") != 0,
            answered_ok: self.get("answered_ok"),
            answered_error: self.get("answered_error"),
            answered_otherwise: self.get("answered_otherwise"),
            run_ns: self.get("run_ns"),
            blocked_on: self.get("blocked_on"),
            blocked_since_ns: self.get("blocked_since_ns"),
            workers_wanted: self.get("workers_wanted"),
            workers_earlier: self.get("workers_earlier"),
            is_removed: self.get("is_removed") != 0,
            workers_min: self.get("workers_min"),
            workers_max: self.get("workers_max"),
            cold_starts: self.get("cold_starts"),
            cold_start_last_ns: self.get("cold_start_last_ns"),
            cold_start_max_ns: self.get("cold_start_max_ns"),
            calls_held_for_start: self.get("calls_held_for_start"),
            answered_peak: self.get("answered_peak"),
            downstreams: (0..).map_while(|index| self.downstream(index)).collect(),
        }
    }

    /// The n-th of them; none if there is none, or the file has no columns for it.
    fn downstream(&self, index: usize) -> Option<Downstream> {
        let name = self.text(&format!("downstream_{index}"));
        (!name.is_empty()).then(|| Downstream {
            name,
            per_second: self.get(&format!("downstream_{index}_per_second")),
            refusals: self.get(&format!("downstream_{index}_refusals")),
        })
    }

    fn worker(&self) -> Worker {
        Worker {
            worker_id: self.get("worker_id"),
            generation: self.get("generation"),
            function_id: self.get("function_id"),
            pid: self.get("pid"),
            attached_at_ns: self.get("attached_at_ns"),
            slots: self.get("slots"),
            credits_free: self.get("credits_free"),
        }
    }

    fn histogram(&self) -> Histogram {
        let column = self.table.column("buckets");
        let buckets = column.map_or_else(Vec::new, |column| {
            let offsets = (0..column.size / 8).map(|index| self.start + column.offset + index * 8);
            offsets.map(|offset| self.table.image.number(offset)).collect()
        });
        Histogram {
            name: self.name(),
            count: self.get("count"),
            min_ns: self.get("min_ns"),
            max_ns: self.get("max_ns"),
            buckets,
        }
    }
}
