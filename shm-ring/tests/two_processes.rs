//! Two real processes, one real memfd passed over a Unix socket. The second process is this test program again, started
//! with the "test" `worker_process`, which is a test only when its environment says so.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::inspect::SlotStage;
use shm_ring::{
    Completion, Generation, Geometry, Identity, Mapped, Outcome, Request, RouterEnd, Started, WorkerEnd,
    inspect, pass, peer,
};

const SOCKET: &str = "SHM_RING_TEST_SOCKET";
/// A request that is taken and never answered.
const HANG: &[u8] = b"hang";
/// After which a test gives up; nothing is expected to come near it.
const GIVE_UP: Duration = Duration::from_secs(120);

/// The router's half of a test: a ring, its bell, and the process at the other end.
struct Stand {
    router: RouterEnd<Mapped>,
    bell: EventDoorbell,
    /// Open as long as the test wants the worker to live.
    socket: UnixStream,
    pidfd: OwnedFd,
    worker: Child,
    directory: PathBuf,
}

impl Stand {
    fn new(name: &str, slot_count: u32) -> Self {
        let directory = std::env::temp_dir().join(format!("shm-ring-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("attach.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let worker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker_process", "--nocapture"])
            .env(SOCKET, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (socket, _) = listener.accept().unwrap();
        let credentials = peer::credentials(&socket).unwrap();
        assert_eq!(credentials.pid, worker.id());
        let pidfd = peer::pidfd_open(credentials.pid).unwrap();

        let geometry = Geometry::new(slot_count, 1 << 20).unwrap();
        let (memory, fd) = Mapped::create("quickfire-ring-test", geometry.memory_size()).unwrap();
        let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
        let router = RouterEnd::new(memory, geometry, identity);
        let bell = EventDoorbell::new().unwrap();
        assert_eq!(pass::send_with_fds(&socket, b"ring", &[fd.as_fd(), bell.as_fd()]), Ok(4));
        Self { router, bell, socket, pidfd, worker, directory }
    }

    fn push(&mut self, invocation_id: u64, payload: &[u8]) -> bool {
        let request = Request {
            invocation_id,
            deadline_at_ns: u64::MAX,
            pushed_at_ns: 0,
            flags: 0,
            criticality: 1,
            context: None,
        };
        self.router.push(request, payload).is_ok()
    }

    fn publish(&mut self) {
        if self.router.publish() {
            self.router.wake();
        }
    }

    /// Spins a little, then sleeps on the bell as a router does.
    fn next_completion(&mut self) -> Completion {
        let give_up_at = Instant::now() + GIVE_UP;
        loop {
            for _ in 0..50 {
                if let Some(completion) = self.router.next_completion().unwrap() {
                    return completion;
                }
                std::hint::spin_loop();
            }
            assert!(Instant::now() < give_up_at, "no answer");
            if self.router.announce_sleep() {
                let mut fds = [PollFd::new(&self.bell, PollFlags::IN)];
                let _ = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
                self.router.announce_awake();
                self.bell.silence().unwrap();
            }
        }
    }

    fn finish(mut self) {
        drop(self.socket);
        assert!(self.worker.wait().unwrap().success(), "the worker leaves when the socket ends");
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// The other process: echoes until its socket ends.
#[test]
fn worker_process() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let socket = UnixStream::connect(path).unwrap();
    let mut fds = Vec::new();
    assert_eq!(pass::receive_with_fds(&socket, &mut [0; 64], &mut fds), Ok(4));
    let bell = EventDoorbell::from_fd(fds.pop().unwrap());
    let mut worker = WorkerEnd::attach(Mapped::attach(fds.pop().unwrap()).unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    loop {
        while let Some(taken) = worker.next_request().unwrap() {
            if worker.payload(&taken) == HANG {
                while pass::receive_with_fds(&socket, &mut [0; 1], &mut Vec::new()) != Ok(0) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            let (payload, result) = worker.buffers(&taken);
            let size = payload.len();
            result[..size].copy_from_slice(payload);
            worker.complete_in_place(taken, Outcome::Ok, 1, 2, size);
            if worker.publish() {
                bell.ring().unwrap();
            }
        }
        if pass::receive_with_fds(&socket, &mut [0; 1], &mut Vec::new()) == Ok(0) {
            return;
        }
        worker.wait(2000, Some(Duration::from_millis(50))).unwrap();
    }
}

#[test]
fn a_million_calls_go_to_another_process_and_come_back() {
    const CALLS: u64 = 1_000_000;
    let mut stand = Stand::new("million", 64);
    let mut pushed = 0;
    let mut answered = 0;
    let mut result = Vec::new();
    while answered < CALLS {
        while pushed < CALLS && stand.push(pushed, &pushed.to_le_bytes()) {
            pushed += 1;
        }
        stand.publish();
        let mut next = Some(stand.next_completion());
        while let Some(completion) = next {
            result.clear();
            stand.router.read_result(&completion, &mut result);
            assert_eq!(result, completion.invocation_id.to_le_bytes());
            assert_eq!(completion.invocation_id, answered, "one worker answers in order");
            stand.router.release(completion);
            answered += 1;
            next = stand.router.next_completion().unwrap();
        }
    }
    assert_eq!(stand.router.free_slots(), 64);
    stand.finish();
}

#[test]
fn one_call_at_a_time_wakes_both_sides_and_large_payloads_arrive() {
    let mut stand = Stand::new("large", 2);
    let mut result = Vec::new();
    for (invocation_id, size) in [0, 1, 160, 161, 100_000, 1 << 20].into_iter().cycle().take(60).enumerate() {
        let payload: Vec<u8> = (0..size).map(|index| (index * 7 + invocation_id) as u8).collect();
        assert!(stand.push(invocation_id as u64, &payload));
        stand.publish();
        let completion = stand.next_completion();
        result.clear();
        stand.router.read_result(&completion, &mut result);
        assert!(result == payload, "payload of {size} bytes");
        stand.router.release(completion);
    }
    stand.finish();
}

#[test]
fn a_killed_worker_leaves_a_legible_ring() {
    let mut stand = Stand::new("killed", 4);
    assert!(stand.push(1, b"ok"));
    assert!(stand.push(2, HANG));
    assert!(stand.push(3, b"never begun"));
    stand.publish();
    let completion = stand.next_completion();
    stand.router.release(completion);
    let give_up_at = Instant::now() + GIVE_UP;
    let stage_of = |stand: &Stand, invocation_id| {
        let report = inspect(stand.router.memory()).unwrap();
        report.slots.iter().find(|slot| slot.invocation_id == invocation_id).map(|slot| slot.stage)
    };
    while stage_of(&stand, 2) != Some(SlotStage::Taken) {
        assert!(Instant::now() < give_up_at, "never taken");
        std::thread::yield_now();
    }
    // Given
    stand.worker.kill().unwrap();
    stand.worker.wait().unwrap();
    assert_eq!(peer::has_ended(&stand.pidfd), Ok(true));
    assert_eq!(pass::receive_with_fds(&stand.socket, &mut [0; 1], &mut Vec::new()), Ok(0));
    // Expect
    assert_eq!(stand.router.next_completion(), Ok(None));
    let lost: Vec<_> = stand.router.in_flight().collect();
    let started: Vec<_> = lost.iter().map(|(slot, id)| (*id, stand.router.was_started(*slot))).collect();
    assert!(started.contains(&(2, Started::Yes)));
    assert!(started.contains(&(3, Started::No)));
    assert_eq!(started.len(), 2);
    std::fs::remove_dir_all(&stand.directory).unwrap();
}
