//! Starting a router in this process, and ending it.
//!
//! In: a checked [`Config`].  Out: a [`Router`]: running threads, bound addresses, in-process front-ends.
//! Always: either everything runs, or nothing does and the error says what was in the way.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::{EngineRefused, InvocationId, Nanos, ShardId, ledger};
use protocol::FunctionId;
use queue::{Ledger, Mailbox};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::clock::nanos;
use crate::config::{Config, ConfigError, Listen};
use crate::drain::DrainOptions;
use crate::frontend::{self, Bell, Local};
use crate::host::{self, Place};
use crate::io::{IoBackend, IoOptions};
use crate::kept::{self, KeptBounds};
use crate::names::{Names, SharedNames};
use crate::net::listener::{ListenError, Listener};
use crate::net::{NetOptions, OUTPUT_FACTOR_MAX};
use crate::placement::{Board, Placement, Thresholds};
use crate::processors::Processors;
use crate::reload::{self, Difference};
use crate::run_dir::{self, RunDir, RunDirError};
use crate::shard::{Command, Explained, Publish, Reconfigure, ShardInputs, ShardOptions, ShardRefused};
use crate::shm_clients::ShmOptions;
use crate::tape::Tape;
use crate::workers::{AttachOptions, ShimState};

mod specs;

use specs::{function_rings, function_specs, limits, names_of, respecified, tenant_specs};

/// Commands that may wait for one shard; more than a person can type.
const COMMANDS_MAX: usize = 64;
/// How long a shard may take to reply to a command: thousands of turns.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// In-process calls that may wait for one shard.
const LOCAL_CALLS_MAX: u32 = 16_384;
/// How long a send may stand still while more than `output_size_max` wait behind it.
const OUTPUT_STALL_MAX: Nanos = Nanos::from_secs(1);
/// Output of all of a shard's connections, in multiples of what makes one of them a slow reader at once: by default
/// 16 x 64 MiB = 1 GiB, which honest clients on one host do not reach.
const OUTPUT_MEMORY_FACTOR: usize = 16;
/// How long a client that was told to go may take to read it.
const CLOSE_TIMEOUT: Nanos = Nanos::from_secs(1);
/// How long workers may take to exit at the end. Longer than this, they are their shim's to stop.
const STOP_TIMEOUT: Nanos = Nanos::from_secs(2);

/// Why a router does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A shard.
    #[error("shard {shard}: {refused}")]
    Shard {
        /// Which.
        shard: u32,
        /// Why.
        refused: ShardRefused,
    },
    /// A thread, a descriptor.
    #[error("{operation}: {error}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

/// Why a router does not go on with another configuration. It goes on with the one it has.
#[derive(Debug, thiserror::Error)]
pub enum ReloadRefused {
    /// Together with what cannot change while it runs, it contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An engine has no room for it.
    #[error(transparent)]
    Engine(#[from] EngineRefused),
    /// The shim could not be told.
    #[error("cannot write {path} for the shim: {error}")]
    Shim {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// It is going away, or a shard has failed.
    #[error("the router is stopping")]
    Stopping,
}

/// How often a shard that has to answer is asked whether it still can.
const ANSWER_POLL: Duration = Duration::from_millis(10);

/// What [`start_with`] may be given beside the configuration.
#[derive(Default)]
pub struct StartOptions {
    /// Makes what shows a shard's counters to the outside.
    #[allow(clippy::type_complexity, reason = "a factory is needed once, here")]
    pub publish: Option<Box<dyn Fn(u32) -> Option<Box<dyn Publish>>>>,
    /// Ring sizes other than the usual ones, for tests.
    pub io: Option<IoOptions>,
    /// Connection bounds other than those of the configuration, for tests.
    #[allow(clippy::type_complexity, reason = "a hook is needed once, here")]
    pub net: Option<Box<dyn Fn(&mut NetOptions)>>,
    /// Other thresholds for moving connections than the usual ones, for tests.
    pub placement: Option<Thresholds>,
    /// Another user than our own to whom attaching is left, for tests.
    pub attach_user_id: Option<u32>,
}

/// A running router. Dropping it drains it and waits.
pub struct Router {
    shards: Vec<Running>,
    bound: Vec<Listen>,
    socket_files: Vec<PathBuf>,
    shim: ShimState,
    is_drain_asked: AtomicBool,
    /// In force. Locked for as long as a reload takes, so that shards see all of them in one order.
    config: Mutex<Config>,
    names: SharedNames,
    // Held until the threads are gone: the directory's lock.
    run_dir: RunDir,
}

struct Running {
    commands: Arc<Mailbox<Command>>,
    local: Local,
    io: IoBackend,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Hands the shard a command and waits for its answer.
    fn ask<Answer>(&self, make: impl FnOnce(SyncSender<Answer>) -> Command) -> Result<Answer, ReloadRefused> {
        let (done, answer) = sync_channel(1);
        let mut command = make(done);
        while let Err(full) = self.commands.push(command) {
            if self.has_ended() {
                return Err(ReloadRefused::Stopping);
            }
            // The shard takes what is before it in its next turn.
            std::thread::sleep(ANSWER_POLL);
            command = full.0;
        }
        loop {
            match answer.recv_timeout(ANSWER_POLL) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) if !self.has_ended() => {}
                Err(_) => return Err(ReloadRefused::Stopping),
            }
        }
    }

    fn has_ended(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Starts a router as the configuration says.
pub fn start(config: &Config) -> Result<Router, StartError> {
    start_with(config, StartOptions::default())
}

/// The same, with more said.
pub fn start_with(config: &Config, options: StartOptions) -> Result<Router, StartError> {
    raise_descriptor_limit();
    let run_dir = RunDir::claim(&config.router.run_dir)?;
    // Before the first shard: a shim that an earlier router left reads it as soon as it has found one.
    write_shim_config(run_dir.path(), config).map_err(system("writing the configuration for the shim"))?;
    let shard_count = config.router.shards;
    let mut listeners = Vec::new();
    for listen in &config.router.listen {
        listeners.push(Listener::bind(listen, shard_count as usize)?);
    }
    let mut router = Router {
        shards: Vec::new(),
        bound: listeners.iter().map(|listener| listener.bound.clone()).collect(),
        socket_files: listeners.iter().filter_map(|listener| listener.socket_file.clone()).collect(),
        shim: ShimState::default(),
        is_drain_asked: AtomicBool::new(false),
        config: Mutex::new(config.clone()),
        names: SharedNames::new(names_of(config)),
        run_dir,
    };
    let ledger = Arc::new(ledger(&limits(config, 0)));
    let bells = (0..shard_count)
        .map(|_| Bell::new().map(Arc::new))
        .collect::<io::Result<Vec<_>>>()
        .map_err(system("eventfd"))?;
    let board = (shard_count > 1)
        .then(|| Arc::new(Board::new(bells.iter().cloned(), net_options(config, &options).connections_max)));
    for (shard, bell) in (0..shard_count).zip(bells) {
        let sockets: Vec<OwnedFd> =
            listeners.iter_mut().filter_map(|listener| listener.sockets.pop()).collect();
        let placement = board.as_ref().map(|board| {
            Placement::new(board.clone(), shard_id(shard), options.placement.unwrap_or_default())
        });
        let share = Share { ledger: ledger.clone(), bell, placement, sockets };
        router.start_shard(config, &options, shard, share)?;
    }
    Ok(router)
}

/// What a shard has in common with the others, or its part of it.
struct Share {
    ledger: Arc<Ledger>,
    bell: Arc<Bell>,
    placement: Option<Placement>,
    sockets: Vec<OwnedFd>,
}

impl Router {
    /// Where callers can connect: the ports are known also where the kernel chose them.
    pub fn bound(&self) -> &[Listen] {
        &self.bound
    }

    /// The first TCP address bound.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.bound.iter().find_map(|listen| match listen {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        })
    }

    /// The run directory, where workers and shim find the attach sockets.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// The in-process front-end of a shard.
    pub fn local(&self, shard: u32) -> Option<Local> {
        self.shards.get(shard as usize).map(|running| running.local.clone())
    }

    /// What each shard's edge to the kernel runs on.
    pub fn io_backends(&self) -> impl Iterator<Item = &IoBackend> {
        self.shards.iter().map(|running| &running.io)
    }

    /// Who keeps the function processes.
    pub fn shim(&self) -> &ShimState {
        &self.shim
    }

    /// Goes on with another configuration, as far as that can be done while calls run; says what was taken and what waits
    /// for a restart. All shards take it or none does: they are alike, so that what the first takes, all take.
    pub fn reconfigure(&self, wanted: &Config) -> Result<Difference, ReloadRefused> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_drain_asked.load(Ordering::Relaxed) {
            return Err(ReloadRefused::Stopping);
        }
        let names = self.names.read(Names::clone);
        let (merged, difference) = reload::merge(&config, wanted, &names)?;
        let names_after = names.after(&merged.functions);
        let tells_shim = config.functions != merged.functions;
        if tells_shim {
            self.write_shim_config(&merged)?;
        }
        for running in &self.shards {
            let tables = |done| {
                Command::Reconfigure(Box::new(Reconfigure {
                    tenants: tenant_specs(&merged),
                    functions: respecified(&config, &merged, &names, &names_after),
                    rings: function_rings(&merged, &names_after),
                    done,
                }))
            };
            if let Err(refused) = running.ask(tables)? {
                // What a shim that attaches later would read. If it cannot be written either, the refusal still stands.
                let _ = tells_shim.then(|| self.write_shim_config(&config));
                return Err(refused.into());
            }
        }
        self.names.replace(names_after);
        *config = merged;
        // When every shard knows what the processes are that will attach. One that is sent away before the shim knows why is
        // started again at worst, and sent away again.
        if tells_shim && let Some(first) = self.shards.first() {
            first.ask(|done| Command::ReloadShim { done })?;
        }
        Ok(difference)
    }

    fn write_shim_config(&self, config: &Config) -> Result<(), ReloadRefused> {
        let run_dir = self.run_dir.path();
        write_shim_config(run_dir, config)
            .map_err(|error| ReloadRefused::Shim { path: run_dir::shim_config(run_dir), error })
    }

    /// What `reconfigure` would change.
    pub fn compare(&self, wanted: &Config) -> Result<Difference, ReloadRefused> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.names.read(|names| reload::merge(&config, wanted, names))?.1)
    }

    /// Where a call is; nothing if no call has this id any more.
    pub fn explain(&self, invocation: InvocationId) -> Result<Option<Explained>, ReloadRefused> {
        match self.shards.get(usize::from(invocation.shard().0)) {
            None => Ok(None),
            Some(running) => running.ask(|done| Command::Explain { invocation, done }),
        }
    }

    /// Asks every shard to finish what was begun and end. Returns at once; asking twice does no harm.
    pub fn drain(&self) {
        self.is_drain_asked.store(true, Ordering::Relaxed);
        for running in &self.shards {
            // Full means that this very command stands in it many times already.
            let _ = running.commands.push(Command::Drain);
        }
    }

    /// The name of a function, also of one that was removed.
    pub fn function_name(&self, id: FunctionId) -> Option<String> {
        self.names.read(|names| names.name(id).map(str::to_owned))
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> u32 {
        self.shards.len() as u32
    }

    /// What a shard tells about the calls that it keeps. None: it ends, or does not come round to it in time.
    pub fn ask_kept(&self, shard: u32, shelf: kept::Shelf, wish: kept::Wish) -> Option<kept::Told> {
        let (reply, told) = channel();
        let running = self.shards.get(shard as usize)?;
        running.commands.push(Command::Kept(kept::Order { shelf, wish, reply })).ok()?;
        told.recv_timeout(COMMAND_TIMEOUT).ok()
    }

    /// Waits until every shard has ended. True if none of them panicked.
    pub fn join(&self) -> bool {
        let mut is_clean = true;
        for running in &self.shards {
            let thread = running.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            is_clean &= thread.is_none_or(|thread| thread.join().is_ok());
        }
        is_clean
    }

    /// True once every shard has ended.
    pub fn has_ended(&self) -> bool {
        self.shards.iter().all(Running::has_ended)
    }

    /// True if a shard ended that nobody asked to: it panicked, and its part of the callers has no router any more.
    pub fn has_failed(&self) -> bool {
        !self.is_drain_asked.load(Ordering::Relaxed) && self.shards.iter().any(Running::has_ended)
    }

    fn start_shard(
        &mut self,
        config: &Config,
        options: &StartOptions,
        shard: u32,
        share: Share,
    ) -> Result<(), StartError> {
        let Share { ledger, bell, placement, sockets } = share;
        let waker = bell.clone();
        let commands = Arc::new(Mailbox::with_capacity(COMMANDS_MAX, move || waker.ring()));
        let (local, local_end) = frontend::local(self.names.clone(), bell.clone(), LOCAL_CALLS_MAX);
        let attach_listen = Listen::Unix(self.run_dir.attach_socket(shard));
        let mut attach = Listener::bind(&attach_listen, 1)?;
        self.socket_files.extend(attach.socket_file.take());
        let attach = attach.sockets.remove(0);
        let shown = self.run_dir.show_attach_socket(shard).map_err(system("showing an attach socket"))?;
        self.socket_files.push(shown);
        let (started, told) = sync_channel(1);
        let place = Place {
            options: shard_options(config, options, shard, ledger),
            inputs: ShardInputs {
                listeners: sockets,
                attach,
                commands: commands.clone(),
                bell,
                local: local_end,
                placement,
                shim: self.shim.clone(),
                // A shard whose tape cannot be made goes on, and cannot be recorded.
                tape: Tape::create(&run_dir::tape(self.run_dir.path(), shard), shard as u16)
                    .unwrap_or_else(|_| Tape::none()),
                publish: options.publish.as_ref().and_then(|make| make(shard)),
            },
            pin: config.router.pin.get(shard as usize).copied(),
            started,
        };
        let thread = host::start(config.router.host, place).map_err(system("starting a thread"))?;
        match told.recv() {
            Ok(Ok(io)) => {
                self.shards.push(Running { commands, local, io, thread: Mutex::new(Some(thread)) });
                Ok(())
            }
            Ok(Err(refused)) => Err(StartError::Shard { shard, refused }),
            Err(_) => Err(StartError::System {
                operation: "starting a shard",
                error: io::Error::other("its thread ended before it could say why"),
            }),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.drain();
        self.join();
        for path in &self.socket_files {
            // A successor replaces what is left anyway.
            let _ = fs::remove_file(path);
        }
    }
}

fn system(operation: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { operation, error }
}

/// Whole or not at all: the shim may read at any time. For our user only: what functions are given in `env` may be secret.
fn write_shim_config(run_dir: &Path, config: &Config) -> io::Result<()> {
    let path = run_dir::shim_config(run_dir);
    let new = path.with_extension("toml.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(config.to_short_toml().as_bytes())?;
    fs::rename(&new, &path)
}

fn shard_id(shard: u32) -> ShardId {
    ShardId(u8::try_from(shard).expect("the configuration allows at most 256 shards"))
}

fn net_options(config: &Config, options: &StartOptions) -> NetOptions {
    let router = &config.router;
    let mut net = NetOptions {
        frame_size_max: router.frame_size_max,
        credits: router.connection_credits,
        connections_max: router.connections_max,
        output_size_max: router.output_size_max as usize,
        output_memory_max: router.output_size_max as usize * OUTPUT_FACTOR_MAX * OUTPUT_MEMORY_FACTOR,
        output_stall_max: OUTPUT_STALL_MAX,
        hello_timeout: nanos(router.hello_timeout),
        close_timeout: CLOSE_TIMEOUT,
    };
    if let Some(change) = &options.net {
        change(&mut net);
    }
    net
}

/// What one shard of a router with this configuration is made of.
pub fn shard_options(
    config: &Config,
    options: &StartOptions,
    shard: u32,
    ledger: Arc<Ledger>,
) -> ShardOptions {
    let router = &config.router;
    let names = names_of(config);
    ShardOptions {
        shard: shard_id(shard),
        io: options.io.unwrap_or_default(),
        io_choice: router.io,
        net: net_options(config, options),
        shm: ShmOptions {
            clients_max: router.shm_clients_max,
            direct_lanes: router.direct_lanes,
            memory_max: router.shm_memory_max,
            ..ShmOptions::default()
        },
        attach: AttachOptions {
            shard: shard as u16,
            user_id: options.attach_user_id.unwrap_or_else(|| geteuid().as_raw()),
            config_digest: config.digest(),
            rings: function_rings(config, &names),
        },
        limits: limits(config, shard),
        ledger,
        tenants: tenant_specs(config),
        functions: function_specs(config, &names).into_iter().flatten().collect(),
        payload_memory_max: router.payload_memory_max,
        kept: KeptBounds { count_max: router.kept_calls_max, size_max: router.kept_calls_size_max },
        chance_seed: RandomState::new().hash_one(shard),
        idle: router.idle,
        spin: nanos(router.spin),
        processor_count: Processors::of_this_process().count(),
        shard_count: router.shards,
        drain: DrainOptions {
            drain_timeout: nanos(router.drain_timeout),
            close_timeout: CLOSE_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
        },
    }
}

/// Ten thousand connections need as many descriptors; the usual soft limit is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused only if the hard limit was lowered meanwhile; then the soft one stands, and accepting pauses at it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
