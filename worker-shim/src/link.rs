//! Stage 6 of 8: the shim's connection to a shard of the router, on `DIR/attach-N.sock` (records: `protocol::attach`).
//!
//! In: readiness and time.  Out: a [`Word`] when it concerns the processes, those of the shard if nothing else is said.
//! Always: either connected, or with a time for the next try.
//! Never: blocks, takes the router's silence for its death (only the end of the stream is), or dies of what a
//! confused router sends: that ends the connection, like any other end of it.
//!
//! ```text
//!   Away ──connected, AttachShim sent──▶ Greeting ──ShimAccepted──▶ Attached
//!    ▲ │ every 50 ms; after reattach_timeout: RouterGone │              │
//!    └─┴──────── end of stream, or a refusal that passes ┴──────────────┘
//! ```

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use protocol::FunctionName;
use protocol::attach::{self, AttachRefused, MESSAGE_SIZE_MAX, Message};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::ShimConfig;

/// Time between two tries to reach the router.
const RETRY_NS: u64 = 50_000_000;

/// What the router's behaviour means for the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Stop all of them.
    Stop,
    /// Look again which processes are to be kept, of all shards.
    Reload,
    /// This edition of a function serves.
    Serves {
        /// The function.
        name: FunctionName,
        /// Which.
        edition: u64,
    },
    /// So many processes of an edition are to be kept.
    Wanted {
        /// The function.
        name: FunctionName,
        /// Which.
        edition: u64,
        /// How many.
        count: u32,
        /// The process that was told to end, if one was.
        leaving: Option<u32>,
    },
    /// It will never take this shim.
    Refused(AttachRefused),
    /// There was no router for too long.
    RouterGone,
}

/// The connection, or the wait for it.
pub struct Link {
    socket_path: PathBuf,
    greeting: Message,
    patience_ns: u64,
    state: State,
}

enum State {
    Away { since_ns: u64, retry_at_ns: u64 },
    Greeting { stream: UnixStream, inbox: Inbox, away_since_ns: u64 },
    Attached { stream: UnixStream, inbox: Inbox },
}

impl Link {
    /// A link to a shard that tries at once.
    pub fn new(config: &ShimConfig, shard: u32) -> Self {
        Self {
            socket_path: config.attach_socket(shard),
            greeting: Message::AttachShim {
                config_digest: config.config_digest,
                process_id: std::process::id(),
            },
            patience_ns: u64::try_from(config.reattach_timeout.as_nanos()).unwrap_or(u64::MAX),
            state: State::Away { since_ns: 0, retry_at_ns: 0 },
        }
    }

    /// Does what is due, and reads what has come.
    pub fn turn(&mut self, now_ns: u64) -> Option<Word> {
        if let State::Away { since_ns, retry_at_ns } = self.state {
            if now_ns < retry_at_ns {
                return None;
            }
            let retry_at_ns = now_ns.saturating_add(RETRY_NS);
            if now_ns.saturating_sub(since_ns) >= self.patience_ns {
                self.state = State::Away { since_ns, retry_at_ns };
                return Some(Word::RouterGone);
            }
            self.state = match connect(&self.socket_path, &self.greeting) {
                Ok(stream) => State::Greeting { stream, inbox: Inbox::default(), away_since_ns: since_ns },
                Err(_) => State::Away { since_ns, retry_at_ns },
            };
        }
        loop {
            let (stream, inbox) = match &mut self.state {
                State::Away { .. } => return None,
                State::Greeting { stream, inbox, .. } | State::Attached { stream, inbox } => (stream, inbox),
            };
            match inbox.next(stream) {
                Ok(Some(Message::ShimAccepted { .. })) => self.become_attached(),
                Ok(Some(Message::ShimStop)) => return Some(Word::Stop),
                Ok(Some(Message::ShimReload)) => return Some(Word::Reload),
                Ok(Some(Message::EditionServes { name, edition })) => {
                    return Some(Word::Serves { name, edition });
                }
                Ok(Some(Message::PlacesWanted { name, edition, count, leaving })) => {
                    let leaving = Some(leaving).filter(|process_id| *process_id != 0);
                    return Some(Word::Wanted { name, edition, count, leaving });
                }
                Ok(Some(Message::Refused { reason })) if !passes(reason) => {
                    return Some(Word::Refused(reason));
                }
                Ok(Some(_)) | Err(_) => self.become_away(now_ns),
                Ok(None) => return None,
            }
        }
    }

    /// Tells the router that a function keeps failing. Lost if there is no router: it is told at the next failure.
    pub fn tell_failing(&mut self, message: &Message) {
        if let State::Attached { stream, .. } = &mut self.state {
            let mut bytes = Vec::with_capacity(MESSAGE_SIZE_MAX);
            message.encode(&mut bytes);
            // The socket buffer holds hundreds of these. If it is full, the router is stuck; and after half a record
            // it would misread the next one, so the connection is given up.
            if !matches!(stream.write(&bytes), Ok(size) if size == bytes.len()) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    /// When `turn` has something to do even if nothing is read.
    pub fn due_at_ns(&self) -> Option<u64> {
        match self.state {
            State::Away { retry_at_ns, .. } => Some(retry_at_ns),
            State::Greeting { .. } | State::Attached { .. } => None,
        }
    }

    /// What `poll` should wait for.
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        match &self.state {
            State::Away { .. } => None,
            State::Greeting { stream, .. } | State::Attached { stream, .. } => {
                Some(PollFd::new(stream, PollFlags::IN))
            }
        }
    }

    /// True while the router knows this shim.
    pub fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached { .. })
    }

    fn become_attached(&mut self) {
        let nowhere = State::Away { since_ns: 0, retry_at_ns: 0 };
        self.state = match std::mem::replace(&mut self.state, nowhere) {
            State::Greeting { stream, inbox, .. } => State::Attached { stream, inbox },
            other => other,
        };
    }

    /// A connection that was never accepted does not count as having had a router.
    fn become_away(&mut self, now_ns: u64) {
        let since_ns = match self.state {
            State::Away { since_ns, .. } => since_ns,
            State::Greeting { away_since_ns, .. } => away_since_ns,
            State::Attached { .. } => now_ns,
        };
        self.state = State::Away { since_ns, retry_at_ns: now_ns.saturating_add(RETRY_NS) };
    }
}

/// True for a refusal that may be over at the next try: an old router on its way out, or one that has not yet noticed
/// the end of our own last connection.
fn passes(reason: AttachRefused) -> bool {
    matches!(reason, AttachRefused::Draining | AttachRefused::ShimPresent)
}

/// Connects without waiting: a local socket takes a connection at once or not at all.
fn connect(path: &Path, greeting: &Message) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut stream = UnixStream::from(socket);
    let mut bytes = Vec::with_capacity(MESSAGE_SIZE_MAX);
    greeting.encode(&mut bytes);
    stream.write_all(&bytes)?;
    Ok(stream)
}

/// Bytes of the stream that are not yet a whole record.
#[derive(Default)]
struct Inbox(Vec<u8>);

impl Inbox {
    /// The next record; `None` if it has not come yet.
    fn next(&mut self, stream: &mut UnixStream) -> io::Result<Option<Message>> {
        loop {
            if let Some((message, size)) = attach::decode(&self.0).map_err(io::Error::other)? {
                self.0.drain(..size);
                return Ok(Some(message));
            }
            let mut bytes = [0; MESSAGE_SIZE_MAX];
            match stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // At most one incomplete record is kept, so this stays below two of the largest.
                Ok(size) => self.0.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    const DIGEST: u64 = 0xD16E57;

    struct Router {
        listener: UnixListener,
        dir: tempfile::TempDir,
    }

    impl Router {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { listener: UnixListener::bind(dir.path().join("attach-0.sock")).unwrap(), dir }
        }

        fn link(&self) -> Link {
            let config = ShimConfig {
                run_dir: self.dir.path().into(),
                shards: 1,
                functions: vec![],
                reattach_timeout: Duration::from_secs(1),
                stop_grace: ShimConfig::STOP_GRACE_DEFAULT,
                config_digest: DIGEST,
            };
            Link::new(&config, 0)
        }

        /// Takes the connection, and the greeting.
        fn accept(&self) -> UnixStream {
            let (mut stream, _) = self.listener.accept().unwrap();
            let mut bytes = [0; attach::RECORD_SIZE];
            stream.read_exact(&mut bytes).unwrap();
            let greeting = attach::decode(&bytes).unwrap().unwrap().0;
            assert_eq!(
                greeting,
                Message::AttachShim { config_digest: DIGEST, process_id: std::process::id() }
            );
            stream
        }
    }

    fn send(stream: &mut UnixStream, message: Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
    }

    #[test]
    fn accepted_then_told_to_stop() {
        let router = Router::new();
        let mut link = router.link();
        assert_eq!(link.turn(0), None);
        let mut stream = router.accept();
        assert!(!link.is_attached());
        send(&mut stream, Message::ShimAccepted { shard: 0 });
        assert_eq!(link.turn(1), None);
        assert!(link.is_attached());
        assert_eq!(link.due_at_ns(), None, "an attached shim needs no timer");
        let name = FunctionName::new("echo").unwrap();
        send(&mut stream, Message::ShimReload);
        send(&mut stream, Message::EditionServes { name, edition: 7 });
        for leaving in [0, 4711] {
            send(&mut stream, Message::PlacesWanted { name, edition: 7, count: 3, leaving });
        }
        send(&mut stream, Message::ShimStop);
        assert_eq!(link.turn(2), Some(Word::Reload));
        assert_eq!(link.turn(3), Some(Word::Serves { name, edition: 7 }));
        for leaving in [None, Some(4711)] {
            assert_eq!(link.turn(4), Some(Word::Wanted { name, edition: 7, count: 3, leaving }));
        }
        assert_eq!(link.turn(5), Some(Word::Stop));
    }

    #[test]
    fn a_router_that_died_is_waited_for_and_then_given_up() {
        let router = Router::new();
        let mut link = router.link();
        assert_eq!(link.turn(0), None);
        let mut stream = router.accept();
        send(&mut stream, Message::ShimAccepted { shard: 0 });
        assert_eq!(link.turn(1), None);
        drop((stream, router.listener));

        assert_eq!(link.turn(7), None);
        assert!(!link.is_attached());
        assert_eq!(link.due_at_ns(), Some(7 + RETRY_NS));
        assert_eq!(link.turn(7 + RETRY_NS), None, "nobody there");
        assert_eq!(link.turn(7 + 999_999_999), None);
        assert_eq!(link.turn(7 + 1_000_000_000 + RETRY_NS), Some(Word::RouterGone));
    }

    #[test]
    fn a_shim_of_another_configuration_is_told_once_and_for_all() {
        let router = Router::new();
        let mut link = router.link();
        assert_eq!(link.turn(0), None);
        send(&mut router.accept(), Message::Refused { reason: AttachRefused::ConfigDiffers });
        assert_eq!(link.turn(1), Some(Word::Refused(AttachRefused::ConfigDiffers)));
    }

    #[test]
    fn a_refusal_that_passes_is_tried_again() {
        let router = Router::new();
        let mut link = router.link();
        assert_eq!(link.turn(0), None);
        send(&mut router.accept(), Message::Refused { reason: AttachRefused::Draining });
        assert_eq!(link.turn(1), None);
        assert_eq!(link.due_at_ns(), Some(1 + RETRY_NS));
        assert_eq!(link.turn(1 + RETRY_NS), None);
        let mut stream = router.accept();
        send(&mut stream, Message::ShimAccepted { shard: 0 });
        assert_eq!(link.turn(2 + RETRY_NS), None);
        assert!(link.is_attached());
    }

    #[test]
    fn a_router_that_talks_nonsense_is_left_and_tried_again() {
        let router = Router::new();
        let mut link = router.link();
        assert_eq!(link.turn(0), None);
        router.accept().write_all(&[0xAB; 200]).unwrap();
        assert_eq!(link.turn(1), None);
        assert_eq!(link.due_at_ns(), Some(1 + RETRY_NS));
    }
}
