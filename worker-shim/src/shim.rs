//! Stage 6 of 8: the shim's loop. One thread, which sleeps in `poll` until something happened.
//!
//! In: signals (a child died, or stop), output of processes, the router's word, time.
//! Out: what the lives of the places ask for; logs; `shim.json`.
//! Owns: every process, in its place, and `DIR/shim.lock`.
//! Always: `turn` handles exits before time, so that no place acts on a process that is no more. And the shards' words before
//! exits: a process that was told to end is named before it can have ended, and is then no failure.
//! Always: a place that is not wanted any more and has no process goes at once; one that has goes with its process, which
//! the router tells to end when its calls are done. Which places are wanted: `function.rs`.
//! Never: blocks anywhere but in `poll`; spins (each place has its wait, and an idle shim looks at its logs once an hour).
//!
//! ```text
//! turn: poll ─▶ signals ─▶ output ─▶ the shards' words ─▶ exits ─▶ time ─▶ templates ─▶ shim.json
//! ```
//! A process comes to be by exec, at once, or is copied from a template, some time later: `shim/templates.rs`.

mod failure;
mod groups;
mod templates;

use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::attach::AttachRefused;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::cgroup::{Cgroups, CgroupsMissing};
use crate::config::{ConfigRefused, FunctionConfig, ShimConfig};
use crate::function::{Function, Prospect};
use crate::jitter::Jitter;
use crate::life::{Action, Event, Life, Patience};
use crate::link::{Link, Word};
use crate::logs::{LogBounds, PlaceLog, sweep, unix_us};
use crate::orphanage;
use crate::place::Place;
use crate::process::{self, Exit, Process, Program, Role};
use crate::run_lock::lock;
use crate::signals::Signals;
use crate::status::{FunctionStatus, Status, StatusFile};
use crate::template::Template;
use failure::CODE_CANNOT_START;

/// Read from one stream and turn: 64 KiB, the size of a pipe. One place that prints without end gets its share.
const OUTPUT_SIZE_PER_TURN: usize = 64 << 10;
/// How long a process may be left that nobody waits for and that is not known to serve: much longer than the router's word is
/// on its way.
const SPENT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a process that was told to end, and held no call then, may take for it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than the shim its processes look for a router.
const MORE_PATIENCE: Duration = Duration::from_secs(5);
/// A killed process that the kernel will not let die (it waits for a disk that is gone) is given up after this.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// Why the shim stopped. Each is a clean end: nothing it started is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The router said so.
    ByRouter,
    /// SIGTERM, SIGINT or SIGHUP.
    BySignal,
    /// There was no router for `reattach_timeout`.
    RouterGone,
    /// The router is not the one this shim was started for.
    Refused(AttachRefused),
}

/// Why the shim could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ShimFailed {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    /// Another shim has this run directory.
    #[error("a shim is already running in {}{}", .run_dir.display(), .pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    AlreadyRunning {
        /// Where.
        run_dir: PathBuf,
        /// Its process, as it wrote into the lock file.
        pid: Option<String>,
    },
    /// The system refused something that the shim cannot do without.
    #[error("the shim cannot {what}: {source}")]
    System {
        /// What it tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs a shim until it is told to stop or its router is gone for good. To be called from the main thread of a
/// process of its own: it reaps every child of the process, and function processes die with the calling thread.
///
/// `read_again` gives the configuration as it is by now, when the router says that it is another one; nothing, if it cannot
/// be read, and then the one before stays.
pub fn run(
    config: ShimConfig,
    read_again: impl FnMut() -> Option<ShimConfig> + 'static,
) -> Result<Stopped, ShimFailed> {
    config.check()?;
    let failed_to = |what| move |source| ShimFailed::System { what, source };
    let lock = lock(&config.run_dir)?;
    let logs_dir = config.run_dir.join("logs");
    std::fs::create_dir_all(&logs_dir).map_err(failed_to("create its log directory"))?;
    process::become_subreaper().map_err(failed_to("become the parent of orphans"))?;
    process::keep_descriptors_private().map_err(failed_to("keep its descriptors to itself"))?;
    let signals = Signals::new().map_err(failed_to("listen to signals"))?;

    let mark = orphanage::mark(&config.run_dir).map_err(failed_to("see its run directory"))?;
    if lock.was_left {
        let count = orphanage::end(&mark);
        if count > 0 {
            let _ = writeln!(
                io::stderr(),
                "shim: the one before was killed; {count} processes that it left were ended"
            );
        }
    }

    let mut shim = Shim::new(config, Box::new(read_again), logs_dir, mark, signals);
    loop {
        shim.turn().map_err(failed_to("wait for events"))?;
        if let Some(stopped) = shim.stopped() {
            shim.end_orphans();
            lock.release();
            return Ok(stopped);
        }
    }
}

struct Shim {
    config: ShimConfig,
    read_again: Box<dyn FnMut() -> Option<ShimConfig>>,
    logs_dir: PathBuf,
    /// What every process has in its environment: see `orphanage.rs`.
    mark: String,
    patience: Patience,
    started: Instant,
    /// All that were ever configured; a name keeps its place.
    functions: Vec<Function>,
    places: Vec<Place>,
    templates: Vec<Template>,
    orphans_reaped: u64,
    signals: Signals,
    /// One for each shard.
    links: Vec<Link>,
    /// Shards that said stop.
    stopped_shards: Vec<bool>,
    status_file: StatusFile,
    jitter: Jitter,
    /// When logs are looked at next for lines that are too old.
    sweep_at_ns: u64,
    stopping: Option<Stopped>,
    /// Once a function wanted a group.
    cgroups: Option<Result<Cgroups, CgroupsMissing>>,
    buffer: Box<[u8]>,
}

impl Shim {
    fn new(
        config: ShimConfig,
        read_again: Box<dyn FnMut() -> Option<ShimConfig>>,
        logs_dir: PathBuf,
        mark: String,
        signals: Signals,
    ) -> Self {
        let mut shim = Self {
            patience: config.patience(),
            started: Instant::now(),
            functions: Vec::new(),
            places: Vec::new(),
            templates: Vec::new(),
            orphans_reaped: 0,
            signals,
            links: (0..config.shards).map(|shard| Link::new(&config, shard)).collect(),
            stopped_shards: vec![false; config.shards as usize],
            status_file: StatusFile::new(config.run_dir.join("shim.json")),
            jitter: Jitter::new(),
            sweep_at_ns: 0,
            stopping: None,
            cgroups: Cgroups::are_left_behind(&config.run_dir).then(|| Cgroups::open(&config.run_dir)),
            buffer: vec![0; OUTPUT_SIZE_PER_TURN].into_boxed_slice(),
            config,
            read_again,
            logs_dir,
            mark,
        };
        let functions = std::mem::take(&mut shim.config.functions);
        shim.want(0, functions);
        shim
    }

    /// These functions are wanted from now on, and no others.
    fn want(&mut self, now_ns: u64, configs: Vec<FunctionConfig>) {
        self.functions.iter_mut().for_each(|function| function.is_removed = true);
        for config in configs {
            match self.function(&config.name) {
                Some(index) => self.functions[index].take(config),
                None => self.functions.push(Function::new(config, self.config.shards)),
            }
        }
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            place.log.set_bounds(self.functions[place.function].config.log);
            self.settle(now_ns, index);
        }
        for template in &mut self.templates {
            template.log.set_bounds(self.functions[template.function].config.log);
        }
        self.fill_places(now_ns);
        // Lines may be too old by another bound.
        self.sweep_at_ns = now_ns;
    }

    /// Brings a place to what is wanted of it.
    fn settle(&mut self, now_ns: u64, index: usize) {
        let place = &self.places[index];
        let function = &self.functions[place.function];
        let leave = |within: Duration| {
            let within_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
            Event::LeaveAsked { within_ns }
        };
        let is_missing = self.place_count_like(index) < self.wanted_like(index) && !place.is_told_to_end;
        let event = match function.prospect(place.shard, place.program.edition) {
            Prospect::Spent if !place.has_served => leave(SPENT_TIMEOUT),
            Prospect::Leaves | Prospect::Spent => leave(function.leave_timeout),
            Prospect::Kept if is_missing => Event::StayAsked,
            Prospect::Kept if self.is_surplus(index) && !place.life.has_process() => Event::StopAsked,
            Prospect::Kept => return,
        };
        self.on_event(now_ns, index, event);
    }

    /// Makes the places that are missing.
    fn fill_places(&mut self, now_ns: u64) {
        for function in 0..self.functions.len() {
            for shard in 0..self.config.shards {
                self.fill_places_of(now_ns, function, shard);
            }
        }
    }

    /// The same for one function and shard.
    fn fill_places_of(&mut self, now_ns: u64, index: usize, shard: u32) {
        let function = &self.functions[index];
        if function.is_removed || self.stopped_shards[shard as usize] {
            return;
        }
        let config = function.config.clone();
        let present = self.place_count(index, shard, config.edition);
        for _ in present..function.wanted(shard, config.edition) {
            let place = self.new_place(now_ns, index, shard, config.clone());
            self.places.push(place);
        }
    }

    /// A place with the lowest number that is free in its function.
    fn new_place(&self, now_ns: u64, function: usize, shard: u32, program: Rc<FunctionConfig>) -> Place {
        let is_free = |number: &usize| {
            self.places.iter().all(|place| place.function != function || place.number != *number)
        };
        let number = (0..).find(is_free).unwrap_or_default();
        Place {
            function,
            number,
            shard,
            attach_socket: self.config.attach_socket(shard),
            life: Life::new(now_ns),
            process: None,
            group: None,
            log: PlaceLog::new(
                &self.logs_dir,
                &program.name,
                &number.to_string(),
                program.edition,
                program.log,
            ),
            has_served: self.functions[function].is_serving(shard, program.edition),
            is_told_to_end: false,
            program,
        }
    }

    fn function(&self, name: &str) -> Option<usize> {
        self.functions.iter().position(|function| function.config.name == name)
    }

    /// Places of a function, shard and edition that are to stay.
    fn place_count(&self, function: usize, shard: u32, edition: u64) -> u32 {
        let is_one = |place: &&Place| {
            place.function == function
                && place.shard == shard
                && place.program.edition == edition
                && place.life.is_to_stay()
        };
        self.places.iter().filter(is_one).count() as u32
    }

    /// The same of this one's function, shard and edition.
    fn place_count_like(&self, index: usize) -> u32 {
        let Place { function, shard, ref program, .. } = self.places[index];
        self.place_count(function, shard, program.edition)
    }

    /// How many places like this one there are to be, as long as they are kept.
    fn wanted_like(&self, index: usize) -> u32 {
        let Place { function, shard, ref program, .. } = self.places[index];
        self.functions[function].wanted(shard, program.edition)
    }

    /// Whether there are more places like this one than there are to be.
    fn is_surplus(&self, index: usize) -> bool {
        self.place_count_like(index) > self.wanted_like(index)
    }

    /// Whether another process takes the place of the one that was here.
    fn is_kept(&self, index: usize) -> bool {
        let place = &self.places[index];
        let prospect = self.functions[place.function].prospect(place.shard, place.program.edition);
        prospect == Prospect::Kept && !self.is_surplus(index)
    }

    /// Whether another edition is kept up beside this one, so that its failing leaves no call without a process.
    fn is_another_kept(&self, index: usize) -> bool {
        let Place { function, shard, ref program, .. } = self.places[index];
        self.places.iter().any(|place| {
            place.function == function
                && place.shard == shard
                && place.program.edition != program.edition
                && self.functions[function].prospect(shard, place.program.edition) == Prospect::Kept
        })
    }

    /// Goes on with what the configuration asks for by now.
    fn reload(&mut self, now_ns: u64) {
        if self.stopping.is_some() {
            return;
        }
        let Some(wanted) = (self.read_again)() else { return };
        if let Err(refused) = wanted.check() {
            // A closed stderr is no reason to stop.
            let _ = writeln!(io::stderr(), "shim: {refused}; everything stays as it is");
            return;
        }
        self.want(now_ns, wanted.functions);
    }

    /// Does what a shard of the router says.
    fn obey(&mut self, now_ns: u64, shard: usize, word: Word) {
        match word {
            Word::Reload => self.reload(now_ns),
            Word::Serves { name, edition } => {
                let Some(function) = self.function(name.as_str()) else { return };
                self.functions[function].on_serves(shard, edition);
                for index in 0..self.places.len() {
                    let place = &mut self.places[index];
                    if place.function == function {
                        place.has_served |= place.shard as usize == shard && place.program.edition == edition;
                        self.settle(now_ns, index);
                    }
                }
            }
            Word::Wanted { name, edition, count, leaving } => {
                if self.function(name.as_str()).is_none() {
                    // The configuration is on the disk before any shard goes on with it, and the word that it is may come later.
                    self.reload(now_ns);
                }
                if let Some(function) = self.function(name.as_str())
                    && self.stopping.is_none()
                {
                    self.functions[function].on_wanted(shard, edition, count);
                    self.keep_wanted(now_ns, function, shard as u32, leaving);
                }
            }
            Word::Stop => {
                self.stopped_shards[shard] = true;
                self.stop_places(now_ns, |place| place.shard as usize == shard);
                if self.stopped_shards.iter().all(|is_stopped| *is_stopped) {
                    self.begin_stop(now_ns, Stopped::ByRouter);
                }
            }
            Word::Refused(reason) => self.begin_stop(now_ns, Stopped::Refused(reason)),
            Word::RouterGone => self.begin_stop(now_ns, Stopped::RouterGone),
        }
    }

    /// Brings a function's places in a shard to how many are wanted. `leaving`: a process of it that was told to end.
    fn keep_wanted(&mut self, now_ns: u64, function: usize, shard: u32, leaving: Option<u32>) {
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            if place.function != function || place.shard != shard {
                continue;
            }
            if leaving.is_some() && place.process_id() == leaving {
                place.is_told_to_end = true;
                let within_ns = u64::try_from(RELEASE_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
                self.on_event(now_ns, index, Event::LeaveAsked { within_ns });
            } else {
                self.settle(now_ns, index);
            }
        }
        self.fill_places_of(now_ns, function, shard);
    }

    fn turn(&mut self) -> io::Result<()> {
        self.sleep()?;
        let now_ns = self.now_ns();
        if self.signals.take_stop() {
            self.begin_stop(now_ns, Stopped::BySignal);
        }
        self.read_output(now_ns);
        for shard in 0..self.links.len() {
            // What came behind a word is in the link's hands already, where `poll` does not see it.
            while let Some(word) = self.links[shard].turn(now_ns) {
                self.obey(now_ns, shard, word);
                if matches!(word, Word::Refused(_) | Word::RouterGone) {
                    break;
                }
            }
        }
        while let Some(exit) = process::reap_next() {
            self.on_exit(now_ns, exit);
        }
        self.places.retain(|place| !place.life.is_gone());
        self.turn_groups();
        for place in 0..self.places.len() {
            self.on_event(now_ns, place, Event::Time);
        }
        self.turn_templates(now_ns);
        if now_ns >= self.sweep_at_ns {
            self.sweep_logs(now_ns);
        }
        self.write_status();
        Ok(())
    }

    /// Removes lines that are too old. Files of a function that nobody remembers stay as long as those of the most patient one.
    fn sweep_logs(&mut self, now_ns: u64) {
        self.places.iter_mut().for_each(|place| place.log.retire());
        self.templates.iter_mut().for_each(|template| template.log.retire());
        let ages = || self.functions.iter().map(|function| function.config.log.age_max);
        let usual = LogBounds::default().age_max;
        let (shortest, longest) = (ages().min().unwrap_or(usual), ages().max().unwrap_or(usual));
        let age_max_of = |name: &str| {
            self.function(name).map_or(longest, |index| self.functions[index].config.log.age_max)
        };
        sweep::sweep(&self.logs_dir, unix_us(), age_max_of);
        let period_ns = u64::try_from(sweep::period(shortest).as_nanos()).unwrap_or(u64::MAX);
        self.sweep_at_ns = now_ns.saturating_add(period_ns);
    }

    /// Some once every place is gone.
    fn stopped(&self) -> Option<Stopped> {
        let are_gone = self.places.iter().all(|place| place.life.is_gone()) && self.templates.is_empty();
        self.stopping.filter(|_| are_gone)
    }

    /// Sleeps until a descriptor has something to say, or the next thing is due.
    fn sleep(&self) -> io::Result<()> {
        let of_links = self.links.iter().filter_map(Link::due_at_ns);
        let of_templates = self.templates.iter().filter_map(Template::due_at_ns);
        let of_places = self.places.iter().filter_map(|place| place.life.due_at_ns());
        let due_at_ns = of_places
            .chain(of_templates)
            .chain(of_links)
            .chain(self.groups_due_at_ns())
            .fold(self.sweep_at_ns, u64::min);
        let left = Duration::from_nanos(due_at_ns.saturating_sub(self.now_ns()));
        // An hour at most, for then the logs are swept.
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };

        let processes = self.places.iter().filter_map(|place| place.process.as_ref());
        let mut polled: Vec<PollFd<'_>> = vec![self.signals.poll_fd()];
        polled.extend(self.links.iter().filter_map(Link::poll_fd));
        let pipes = processes.flat_map(|process| process.output.iter().flatten());
        polled.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        polled.extend(self.templates.iter().flat_map(Template::poll_fds));
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_output(&mut self, now_ns: u64) {
        for place in &mut self.places {
            place.read_output(now_ns, &mut self.buffer);
        }
        for template in &mut self.templates {
            template.read_output(now_ns, &mut self.buffer);
        }
    }

    fn on_exit(&mut self, now_ns: u64, exit: Exit) {
        let is_of = |process: &Option<Process>| process.as_ref().is_some_and(|it| it.pid == exit.pid);
        if let Some(index) = self.templates.iter().position(|template| is_of(&template.process)) {
            return self.on_template_exit(now_ns, index, exit);
        }
        let Some(index) = self.places.iter().position(|place| is_of(&place.process)) else {
            self.orphans_reaped += 1;
            return;
        };
        let place = &mut self.places[index];
        // What it said last is still in the pipes.
        if let Some(mut process) = place.process.take() {
            place.log.read_last(now_ns, &mut process.output, &mut self.buffer);
        }
        let group = place.group.take();
        let mut reason = exit.cause.to_string();
        reason.extend(group.and_then(|group| self.end_group(index, group)));
        let stderr = self.places[index].log.ended(now_ns, &reason);
        let is_kept = self.is_kept(index);
        let was_asked = self.is_surplus(index) || !self.places[index].life.is_to_stay();

        let jitter = self.jitter.next_u32();
        self.on_event(now_ns, index, Event::Exited { jitter });
        if !is_kept {
            self.on_event(now_ns, index, Event::StopAsked);
        }
        if !was_asked {
            self.functions[self.places[index].function].tally.exits += 1;
            let failure = self.place_failure(index, exit.cause.as_exit_code(), reason, stderr);
            self.tell_failure(now_ns, failure);
        }
    }

    /// Feeds one event to a place and does what its life asks for.
    fn on_event(&mut self, now_ns: u64, index: usize, event: Event) {
        let place = &mut self.places[index];
        match place.life.on_event(now_ns, &self.patience, event) {
            Action::None => {}
            // Another turn gives it a copy: `order_copies`.
            Action::Spawn if place.program.snapshot => {}
            Action::Spawn => self.spawn(now_ns, index),
            Action::Withdraw => self.withdraw(index),
            Action::Terminate => place.signal_group(Signal::TERM),
            Action::Kill => {
                place.log.remark(now_ns, "did not end in time: SIGKILL");
                place.signal_group(Signal::KILL);
            }
        }
    }

    fn spawn(&mut self, now_ns: u64, index: usize) {
        let started = self.enter_group(index).and_then(|entrances| {
            let place = &self.places[index];
            let role = Role::Worker { attach_socket: &place.attach_socket };
            let program = program(&self.config, &self.mark, &place.program, role);
            process::spawn(Program { entrances, ..program })
        });
        match started {
            Ok(process) => self.on_started(now_ns, index, process),
            Err(error) => {
                if let Some(group) = self.places[index].group.take() {
                    self.end_group(index, group);
                }
                let place = &self.places[index];
                let reason = format!("cannot start {}: {error}", place.program.command[0]);
                self.on_spawn_failed(now_ns, index, reason);
            }
        }
    }

    /// The process that a place asked for is there.
    fn on_started(&mut self, now_ns: u64, index: usize, process: Process) {
        let place = &mut self.places[index];
        place.log.started(now_ns, process.id());
        place.process = Some(process);
        self.functions[place.function].tally.starts += 1;
        self.on_event(now_ns, index, Event::Started);
    }

    /// The process that a place asked for will not be there.
    fn on_spawn_failed(&mut self, now_ns: u64, index: usize, reason: String) {
        let place = &mut self.places[index];
        place.log.remark(now_ns, &reason);
        self.functions[place.function].tally.spawn_failures += 1;
        let jitter = self.jitter.next_u32();
        self.on_event(now_ns, index, Event::SpawnFailed { jitter });
        let failure = self.place_failure(index, CODE_CANNOT_START, reason, Vec::new());
        self.tell_failure(now_ns, failure);
    }

    fn begin_stop(&mut self, now_ns: u64, why: Stopped) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(why);
        self.stop_places(now_ns, |_| true);
        for index in 0..self.templates.len() {
            self.on_template_event(now_ns, index, Event::StopAsked);
        }
    }

    fn stop_places(&mut self, now_ns: u64, is_meant: impl Fn(&Place) -> bool) {
        for index in 0..self.places.len() {
            if is_meant(&self.places[index]) {
                self.on_event(now_ns, index, Event::StopAsked);
            }
        }
    }

    /// Every place is gone; what function processes left behind outside their groups goes now.
    fn end_orphans(&mut self) {
        let begun = Instant::now();
        while process::children().is_ok_and(|children| !children.is_empty()) {
            if begun.elapsed() > UNKILLABLE_AFTER {
                let _ = writeln!(io::stderr(), "shim: children that cannot be killed are left behind");
                break;
            }
            let _ = process::kill_children();
            self.signals.wait(Duration::from_millis(100)); // for SIGCHLD
            while process::reap_next().is_some() {
                self.orphans_reaped += 1;
            }
        }
        if let Some(Ok(cgroups)) = self.cgroups.take() {
            cgroups.close();
        }
        self.write_status();
    }

    fn write_status(&mut self) {
        let status = self.status();
        // A full disk must not stop the supervision; the next change tries again.
        let _ = self.status_file.write(status);
    }

    fn status(&self) -> Status {
        let functions = self.functions.iter().enumerate().filter_map(|(index, function)| {
            let places = || self.places.iter().filter(move |place| place.function == index);
            let templates = || self.templates.iter().filter(move |template| template.function == index);
            if function.is_removed && places().next().is_none() && templates().next().is_none() {
                return None;
            }
            let Function { config, tally, .. } = function;
            let wanted = if function.is_removed { 0 } else { function.wanted_in_all() };
            Some(FunctionStatus {
                name: config.name.clone(),
                is_removed: function.is_removed,
                warm_wanted: wanted,
                processors: config.processors.clone(),
                places: places().map(|place| place.status(place.program.edition == config.edition)).collect(),
                templates: templates().map(|it| it.status(it.program.edition == config.edition)).collect(),
                starts: tally.starts,
                exits: tally.exits,
                spawn_failures: tally.spawn_failures,
                memory_kills: tally.memory_kills,
                processes_refused: tally.processes_refused,
                log_lines_dropped: (places().map(|place| &place.log))
                    .chain(templates().map(|template| &template.log))
                    .map(PlaceLog::lines_dropped)
                    .sum(),
                last_exit: tally.last_exit.clone(),
            })
        });
        Status {
            pid: std::process::id(),
            config_digest: format!("{:016x}", self.config.config_digest),
            router: if self.links.iter().all(Link::is_attached) { "attached" } else { "away" },
            is_stopping: self.stopping.is_some(),
            orphans_reaped: self.orphans_reaped,
            functions: functions.collect(),
        }
    }

    /// Time since the shim began.
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What is started as a function's worker or template.
fn program<'a>(
    config: &'a ShimConfig,
    mark: &'a str,
    function: &'a FunctionConfig,
    role: Role<'a>,
) -> Program<'a> {
    // Processes are more patient than the shim, so that it ends them, all together, and not each itself, to be started again in the
    // last moment.
    let reattach_timeout = config.reattach_timeout.saturating_add(MORE_PATIENCE);
    Program {
        command: &function.command,
        env: &function.env,
        entrances: Vec::new(),
        processors: &function.processors,
        role,
        function: &function.name,
        mark,
        // Not a secret, for the run directory is private: it says what the process was started as.
        token: function.edition,
        reattach_ms: u64::try_from(reattach_timeout.as_millis()).unwrap_or(u64::MAX),
    }
}
