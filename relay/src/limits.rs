//! Every bound of the relay in one place. What a result may hold is the ring's to say (`Call::result_size_max`).

use std::time::Duration;

/// The end of the program's stderr that goes with a fault. With the sentence before it, it fits the smallest region of a ring, one
/// page.
pub const STDERR_TAIL_SIZE_MAX: usize = 2 << 10;
/// How much of something that is wrong is shown with the fault.
pub const FOUND_SIZE_MAX: usize = 200;
/// Room for what surrounds the result in a line of `stdio`: braces, keys, an id.
pub const LINE_ROOM: usize = 4 << 10;
/// The most bytes JSON may take for one byte of a result: `\u0000`.
pub const JSON_GROWTH_MAX: usize = 6;
/// How often a call that runs is asked whether anybody still wants it. A tenth of what nobody notices, and a hundredth of the
/// grace after which the router would have the whole process killed.
pub const WANTED_POLL: Duration = Duration::from_millis(10);
/// How long after its deadline a call is given up that the router has not taken back: a quarter of the router's own grace.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(250);
/// Read of a program's output at once.
pub const OUTPUT_READ_SIZE: usize = 16 << 10;
/// As often in a row: what a process without privileges can make a pipe hold (1 MiB).
pub const OUTPUT_READS_MAX: usize = 64;
/// What a dead program said last has arrived after this, also on a busy machine; all of it is waited for only where something left the
/// program's process group with the pipe in its hands.
pub const STDERR_SETTLE: Duration = Duration::from_millis(500);
/// A program whose connection ended is given this long to end too, so that its exit can be told and not only what followed
/// from it.
pub const EXIT_SETTLE: Duration = Duration::from_millis(100);
/// Between SIGTERM and SIGKILL when the relay ends. A quarter of the shim's own patience with the relay.
pub const STOP_GRACE: Duration = Duration::from_millis(500);
/// The wait before a program is started again that failed twice in a row before its first answer; it doubles with each.
pub const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such wait: the shim's own for its processes.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The first wait before a server is asked again whether it is ready; doubled each time.
pub const READY_POLL_MIN: Duration = Duration::from_millis(5);
/// The longest such wait.
pub const READY_POLL_MAX: Duration = Duration::from_millis(250);
/// How long a server may take to say that it is ready, each time it is asked.
pub const READY_ATTEMPT: Duration = Duration::from_secs(1);
/// Connections that a program may have to its runtime API: each client known uses one or two.
pub const CONNECTIONS_MAX: usize = 16;
/// Read from a pipe at once: what a pipe holds.
pub const READ_SIZE: usize = 64 << 10;

const _: () = assert!(STDERR_TAIL_SIZE_MAX + 2 * FOUND_SIZE_MAX + 1024 <= 4096, "a fault fits one page");
