//! The function process: answers every call in its ring with 32 bytes.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use protocol::FunctionName;
use protocol::attach::{self, MESSAGE_SIZE_MAX, Message};
use shm_ring::{Mapped, Outcome, WorkerEnd, clock, pass};

/// What a call takes by the worker's clock: as long as the quickest ones do, and each the same.
const RUN_NS: u64 = 20;

pub struct Worker {
    ring: WorkerEnd<Mapped>,
    result: [u8; 32],
    /// Open for as long as the worker lives, as the router sees it.
    _socket: UnixStream,
}

impl Worker {
    /// Attaches as the function's process.
    pub fn attach(dir: &Path, function: &str) -> Worker {
        let socket = UnixStream::connect(dir.join(crate::ATTACH_SOCKET)).expect("the shard listens");
        let name = FunctionName::new(function).expect("a name");
        let mut record = Vec::new();
        Message::AttachWorker { name, token: 0, process_id: std::process::id(), lanes_max: 0 }
            .encode(&mut record);
        (&socket).write_all(&record).expect("the shard listens");
        let (mut bytes, mut descriptors) = ([0; MESSAGE_SIZE_MAX], Vec::new());
        let size = pass::receive_with_fds(&socket, &mut bytes, &mut descriptors).expect("the shard answers");
        let message = attach::decode(&bytes[..size]).expect("a message").expect("a whole one").0;
        assert!(matches!(message, Message::Attached(_)), "{message:?}");
        let memory = Mapped::attach(&descriptors[0]).expect("sealed memory");
        Worker {
            ring: WorkerEnd::attach(memory).expect("a ring just made"),
            result: [0; 32],
            _socket: socket,
        }
    }

    /// Answers everything that is there.
    pub fn turn(&mut self) {
        let mut now_ns = clock::monotonic_ns();
        while let Some(taken) = self.ring.next_request().expect("a router of ours") {
            self.result.copy_from_slice(self.ring.payload(&taken));
            let started_at_ns = now_ns;
            now_ns += RUN_NS;
            self.ring.complete(taken, Outcome::Ok, started_at_ns, now_ns, &self.result);
        }
        self.ring.publish();
    }
}
