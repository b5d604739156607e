//! The writing side: the shard's own, one thread.
//!
//! The header and the labels are written once, the name of a function when it is there for the first time. A publishing makes the sequence number odd, stores numbers, and makes
//! it even again; a reader that saw an odd number, or another number after reading than before, reads again.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::limits::DOWNSTREAMS_MAX;
use engine::{BlockedOn, DownstreamView, Engine, Limits, Nanos, WorkerId};
use hdrhistogram::Histogram;
use protocol::DOWNSTREAM_NAME_SIZE_MAX;
use shm_ring::{MapError, Mapped, Memory};

use super::buckets;
use super::layout::{self, BUCKETS, Column, NUMBERS_AFTER_NAME, Section, SectionPlace, header, label};
use crate::shard::Publish;
use crate::stats::{Latency, ShardStats};
use crate::{Config, clock, run_dir};

/// What a counters file is made from.
#[derive(Debug, Clone)]
pub struct CountersSpec {
    /// Which shard.
    pub shard: u32,
    /// The processor it is pinned to.
    pub pinned_to: Option<u32>,
    /// Places for functions: `engine::Limits::functions_max`.
    pub functions_max: u32,
    /// Places for workers: `engine::Limits::workers_max`.
    pub workers_max: u32,
    /// `Config::digest`.
    pub config_digest: u64,
    /// Now, CLOCK_MONOTONIC.
    pub started_at: Nanos,
    /// Now, Unix time in nanoseconds.
    pub started_at_unix_ns: u64,
}

/// Publishes one shard's counters. Dropped in good order, it leaves the file behind as that of a stopped router.
pub struct Publisher<M: Memory> {
    memory: M,
    places: [SectionPlace; 5],
    sequence: u64,
    /// What the rows of workers say; they change seldom, and the file could not be trusted to remember.
    written: Vec<Option<WorkerId>>,
    /// Free slots by function that has a name in the file, summed anew in every publishing.
    credit_free: Vec<u64>,
    /// The same: the row tells of downstreams.
    had_downstreams: Vec<bool>,
    histograms_at: Nanos,
    histograms_measured: u64,
    turn_ns_max: u64,
}

/// Latencies are written this often only while calls run: going over a thousand buckets costs some microseconds, and
/// nobody looks faster.
const HISTOGRAMS_PERIOD: Nanos = Nanos::from_ms(100);
/// As often when no call is there, so that what is read after the last call is about all but the last few.
const HISTOGRAMS_PERIOD_IDLE: Nanos = Nanos::from_ms(10);

const STATE_RUNNING: u64 = 1;
const STATE_STOPPED: u64 = 2;

/// Makes the publishers of a router's shards in its run directory, for `StartOptions::publish`. A shard whose file
/// cannot be made goes on without; `on_error` is told why.
pub fn publishers(
    config: &Config,
    on_error: impl Fn(u32, MapError) + 'static,
) -> Box<dyn Fn(u32) -> Option<Box<dyn Publish>>> {
    let functions_max = config.router.functions_max;
    let (run_dir, config_digest) = (config.router.run_dir.clone(), config.digest());
    let pin = config.router.pin.clone();
    Box::new(move |shard| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let spec = CountersSpec {
            shard,
            pinned_to: pin.get(shard as usize).copied(),
            functions_max,
            workers_max: Limits::default().workers_max,
            config_digest,
            started_at: clock::now(),
            started_at_unix_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
        };
        match Publisher::create(&run_dir::counters(&run_dir, shard), &spec) {
            Ok(publisher) => Some(Box::new(publisher)),
            Err(error) => {
                on_error(shard, error);
                None
            }
        }
    })
}

impl Publisher<Mapped> {
    /// Makes the file, in place of one that a former router left.
    pub fn create(path: &Path, spec: &CountersSpec) -> Result<Self, MapError> {
        let (functions_max, workers_max) = (spec.functions_max as usize, spec.workers_max as usize);
        let (_, size) = layout::arrange(&layout::columns(), functions_max, workers_max);
        Ok(Publisher::over(Mapped::create_file(path, size)?, spec))
    }
}

impl<M: Memory> Publisher<M> {
    /// Over any memory of zeros of the right size.
    pub fn over(memory: M, spec: &CountersSpec) -> Self {
        let columns = layout::columns();
        let (functions_max, workers_max) = (spec.functions_max as usize, spec.workers_max as usize);
        let (places, size) = layout::arrange(&columns, functions_max, workers_max);
        assert!(memory.size() >= size, "{} bytes of counters in {} bytes of memory", size, memory.size());
        let publisher = Publisher {
            memory,
            places,
            sequence: 0,
            written: vec![None; workers_max],
            credit_free: Vec::with_capacity(functions_max),
            had_downstreams: Vec::with_capacity(functions_max),
            histograms_at: Nanos::ZERO,
            histograms_measured: 0,
            turn_ns_max: 0,
        };
        publisher.write_labels(&columns);
        publisher.write_names();
        publisher.write_header(spec, size);
        publisher
    }

    /// Publishes everything. Call about every 10 ms, and before the shard sleeps.
    pub fn publish(&mut self, now: Nanos, engine: &Engine, stats: &ShardStats) {
        self.begin();
        self.shard_row(engine, stats);
        self.name_functions(engine);
        self.worker_rows(engine, stats);
        self.function_rows(engine, stats);
        let period = if engine.is_idle() { HISTOGRAMS_PERIOD_IDLE } else { HISTOGRAMS_PERIOD };
        let measured = stats.latencies.total_ns.settled().len();
        if measured != self.histograms_measured && now.since(self.histograms_at) >= period {
            self.histogram_rows(stats);
            self.histograms_at = now;
            self.histograms_measured = measured;
        }
        self.number(header::PUBLISHED_AT, now.0);
        self.end();
    }

    fn shard_row(&mut self, engine: &Engine, stats: &ShardStats) {
        self.turn_ns_max = self.turn_ns_max.max(stats.counters.turn_ns_max);
        let row = self.place(Section::Shard).row(0);
        let counted = engine.counters().as_slice().iter().copied().chain(stats.counters.values());
        self.numbers(row, counted.chain([self.turn_ns_max]));
    }

    /// Gives a name to each function that is new. An id means one name for ever.
    fn name_functions(&mut self, engine: &Engine) {
        let place = self.place(Section::Functions);
        let named_count = self.had_downstreams.len();
        for (index, view) in engine.functions().enumerate().take(place.row_count).skip(named_count) {
            self.text(place.row(index), view.name, layout::NAME_SIZE);
            self.credit_free.push(0);
            self.had_downstreams.push(false);
        }
    }

    fn function_rows(&mut self, engine: &Engine, stats: &ShardStats) {
        let place = self.place(Section::Functions);
        for (index, view) in engine.functions().enumerate().take(place.row_count) {
            let counted = stats.functions.get(index).copied().unwrap_or_default();
            let configured = || stats.workers_wanted.get(index).copied().unwrap_or(0);
            let numbers = [
                index as u64,
                view.workers.into(),
                view.workers_with_credit.into(),
                self.credit_free.get(index).copied().unwrap_or(0),
                view.queued.into(),
                view.running.into(),
                view.oldest_at.map_or(0, |at| at.0),
                view.is_failing.into(),
                counted.answered_ok,
                counted.answered_error,
                counted.answered_otherwise,
                counted.run_ns,
                view.blocked.on as u64,
                if view.blocked.on == BlockedOn::Nothing { 0 } else { view.blocked.since.0 },
                view.pool.map_or(configured(), |pool| pool.wanted).into(),
                view.workers_earlier.into(),
                view.is_retired.into(),
                view.pool.map_or(configured(), |pool| pool.spec.min).into(),
                view.pool.map_or(configured(), |pool| pool.spec.max).into(),
                view.pool.map_or(0, |pool| pool.cold_starts),
                view.pool.map_or(0, |pool| pool.start_last.0),
                view.pool.map_or(0, |pool| pool.start_max.0),
                view.pool.map_or(0, |pool| pool.calls_held),
                stats.peaks.of(index),
            ];
            self.numbers(place.row(index) + NUMBERS_AFTER_NAME, numbers);
            self.downstreams(index, &view.downstreams);
        }
    }

    /// Nearly always there are none, and there were none the last time.
    fn downstreams(&mut self, index: usize, views: &[Option<DownstreamView>; DOWNSTREAMS_MAX]) {
        let had_any = std::mem::replace(&mut self.had_downstreams[index], views[0].is_some());
        if !had_any && views[0].is_none() {
            return;
        }
        let row = self.place(Section::Functions).row(index);
        for (place, view) in views.iter().enumerate() {
            let offset = row + layout::DOWNSTREAMS_AFTER_NUMBERS + place * layout::DOWNSTREAM_SIZE;
            let name = view.as_ref().map_or(&[0; DOWNSTREAM_NAME_SIZE_MAX], |view| view.name.as_padded());
            self.memory.write(offset, name);
            let numbers = view.map_or([0; 2], |view| [view.per_second.map_or(0, u64::from), view.refusals]);
            self.numbers(offset + DOWNSTREAM_NAME_SIZE_MAX, numbers);
        }
    }

    /// Rows of workers that came or went since the last time, and everybody's free slots.
    fn worker_rows(&mut self, engine: &Engine, stats: &ShardStats) {
        const CREDITS_FREE: usize = (layout::WORKER_NUMBERS.len() - 1) * 8;
        let place = self.place(Section::Workers);
        self.credit_free.fill(0);
        for (index, attached) in stats.roster.places().iter().enumerate().take(place.row_count) {
            let seen = attached.and_then(|attached| Some((attached, engine.worker_view(attached.worker)?)));
            let Some((attached, view)) = seen else {
                if self.written[index].take().is_some() {
                    self.number(place.row(index), 0);
                }
                continue;
            };
            if self.written[index] != Some(attached.worker) {
                self.written[index] = Some(attached.worker);
                let WorkerId { index, generation } = attached.worker;
                let numbers = [
                    1,
                    index.into(),
                    generation.into(),
                    view.function.0.into(),
                    attached.pid.into(),
                    attached.attached_at.0,
                    view.slots.into(),
                ];
                self.numbers(place.row(index as usize), numbers);
            }
            if let Some(sum) = self.credit_free.get_mut(view.function.0 as usize) {
                *sum += u64::from(view.credits);
            }
            self.number(place.row(index) + CREDITS_FREE, view.credits.into());
        }
    }

    fn histogram_rows(&self, stats: &ShardStats) {
        let latencies = &stats.latencies;
        let place = self.place(Section::Histograms);
        for (index, histogram) in [&latencies.total_ns, &latencies.queue_wait_ns, &latencies.run_ns]
            .into_iter()
            .map(Latency::settled)
            .enumerate()
        {
            self.histogram(place.row(index), histogram);
        }
    }

    /// Writes bucket after bucket: recorded values come in ascending order, so each bucket is summed before it is stored.
    fn histogram(&self, row: usize, histogram: &Histogram<u64>) {
        let min = if histogram.is_empty() { 0 } else { histogram.min() };
        self.numbers(row + NUMBERS_AFTER_NAME, [histogram.len(), min, histogram.max()]);
        let (mut bucket, mut sum) = (0, 0);
        for recorded in histogram.iter_recorded() {
            let index = buckets::index_of(recorded.value_iterated_to());
            if index != bucket {
                self.number(row + BUCKETS + bucket * 8, sum);
                (bucket, sum) = (index, 0);
            }
            sum += recorded.count_since_last_iteration();
        }
        self.number(row + BUCKETS + bucket * 8, sum);
    }

    // SYNC(counters.sequence): the odd number is stored before the numbers (fence), the even one after them (Release);
    // the reader loads it before and after, with a fence between.
    fn begin(&mut self) {
        self.sequence += 1;
        self.number(header::SEQUENCE, self.sequence);
        self.memory.fence_seq_cst();
    }

    fn end(&mut self) {
        self.sequence += 1;
        self.memory.store_u64(header::SEQUENCE, self.sequence, Ordering::Release);
    }

    fn write_header(&self, spec: &CountersSpec, size: usize) {
        self.number(header::VERSION, layout::VERSION);
        self.number(header::FILE_SIZE, size as u64);
        self.number(header::PID, std::process::id().into());
        self.number(header::SHARD, spec.shard.into());
        self.number(header::STARTED_AT, spec.started_at.0);
        self.number(header::STARTED_AT_UNIX, spec.started_at_unix_ns);
        self.number(header::CONFIG_DIGEST, spec.config_digest);
        self.number(header::PUBLISHED_AT, spec.started_at.0);
        self.number(header::STATE, STATE_RUNNING);
        self.number(header::PINNED_TO, spec.pinned_to.map_or(0, |processor| u64::from(processor) + 1));
        for (index, place) in self.places.iter().enumerate() {
            let numbers = [place.offset as u64, place.row_size as u64, place.row_count as u64, 0];
            self.numbers(header::SECTIONS + index * 32, numbers);
        }
        // Last: until it is there, the file is none.
        self.memory.store_u64(header::MAGIC, layout::MAGIC, Ordering::Release);
    }

    fn write_labels(&self, columns: &[Column]) {
        for (index, column) in columns.iter().enumerate() {
            let row = self.place(Section::Labels).row(index);
            self.number(row + label::SECTION, column.section as u64);
            self.number(row + label::KIND, column.kind as u64);
            self.number(row + label::OFFSET, column.offset as u64);
            self.number(row + label::SIZE, column.size as u64);
            self.text(row + label::NAME, &column.name, label::UNIT - label::NAME);
            self.text(row + label::UNIT, column.unit, label::MEANING - label::UNIT);
            self.text(row + label::MEANING, column.meaning, layout::LABEL_SIZE - label::MEANING);
        }
    }

    fn write_names(&self) {
        for (index, name) in layout::HISTOGRAMS.iter().enumerate() {
            self.text(self.place(Section::Histograms).row(index), name, layout::NAME_SIZE);
        }
    }

    fn place(&self, section: Section) -> SectionPlace {
        self.places[section as usize]
    }

    fn number(&self, offset: usize, value: u64) {
        self.memory.store_u64(offset, value, Ordering::Relaxed);
    }

    fn numbers(&self, offset: usize, values: impl IntoIterator<Item = u64>) {
        for (index, value) in values.into_iter().enumerate() {
            self.number(offset + index * 8, value);
        }
    }

    /// A text, cut at a character's boundary where it is too long. The memory behind it is zero from the start.
    fn text(&self, offset: usize, text: &str, size_max: usize) {
        let mut size = text.len().min(size_max);
        while !text.is_char_boundary(size) {
            size -= 1;
        }
        self.memory.write(offset, &text.as_bytes()[..size]);
    }
}

impl<M: Memory + Send> Publish for Publisher<M> {
    fn publish(&mut self, now: Nanos, stats: &ShardStats, engine: &Engine) {
        Publisher::publish(self, now, engine, stats);
    }
}

impl<M: Memory> Drop for Publisher<M> {
    fn drop(&mut self) {
        // A shard that panics did not stop in good order.
        if !std::thread::panicking() {
            self.begin();
            self.number(header::STATE, STATE_STOPPED);
            self.end();
        }
    }
}
