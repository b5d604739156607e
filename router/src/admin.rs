//! The admin socket: questions of a person's command to a running router, off the data path.
//!
//! In: one message a connection (`protocol::admin`) on `DIR/admin.sock`.  Out: one answer, made by whoever started it.
//! Always: one thread of its own serves one connection at a time; others wait in the kernel's queue of [`BACKLOG`]. Peers run
//! as our user (SO_PEERCRED); a question is bounded in bytes and in time, so that a command that hangs holds up the next one
//! for [`PEER_TIMEOUT`] at most, and calls not at all. An answer that takes as long as a call does is waited for on a thread of
//! its own, [`LATER_MAX`] of them at once.
//! Never: touches a shard but through its commands.
//! Tests: below; with real processes: `tests/reload.rs`, `tests/cli.rs`.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::admin::{self, AdminPeerMisbehaved, Message};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::geteuid;
use shm_ring::peer;

use crate::config::Listen;
use crate::net::listener::{ListenError, Listener};
use crate::run_dir;

/// Commands that may wait for their turn; more than people type at once.
pub const BACKLOG: i32 = 16;
/// How long a command may take to ask its question, and to take its answer.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits for its answer: behind every other that may wait, each at its slowest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers that may be waited for beside each other; more than a person begins before the first has ended.
pub const LATER_MAX: usize = 16;

/// What a question gets.
pub enum Reply {
    /// The answer.
    Now(Message),
    /// What makes the answer, and may take as long as a call does.
    Later(Box<dyn FnOnce() -> Message + Send>),
}

/// The served socket. Dropping it ends the thread and removes the socket.
pub struct Admin {
    path: PathBuf,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskFailed {
    /// Nobody listens there.
    #[error("no router answers at {path}: {error}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// What came back is no answer.
    #[error("the router at {path} answered what cannot be read: {misbehaved}")]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        misbehaved: AdminPeerMisbehaved,
    },
}

impl Admin {
    /// Serves the run directory's admin socket with `answer`, which is called on a thread of its own.
    pub fn start(
        run_dir: &Path,
        mut answer: impl FnMut(Message) -> Reply + Send + 'static,
    ) -> Result<Admin, ListenError> {
        let path = run_dir::admin_socket(run_dir);
        let listen = Listen::Unix(path.clone());
        let refused = |error: io::Error| ListenError::Refused { listen: listen.clone(), error };
        let mut bound = Listener::bind(&listen, 1)?;
        let listener = UnixListener::from(bound.sockets.remove(0));
        rustix::net::listen(&listener, BACKLOG).map_err(|error| refused(error.into()))?;
        let (stop, stopped) = UnixStream::pair().map_err(refused)?;
        let serve = move || {
            // Whoever answers later holds another share of it.
            let waiting = Arc::new(());
            while wait(&listener, &stopped) {
                if let Ok((peer, _)) = listener.accept() {
                    // A peer that went away or spoke nonsense has lost its answer, and nothing else.
                    let _ = serve_one(peer, &mut answer, &waiting);
                }
            }
        };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(serve).map_err(refused)?;
        Ok(Admin { path, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Its end is what the thread waits for.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // A successor replaces what is left anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Asks the router of this run directory.
pub fn ask(run_dir: &Path, question: &Message) -> Result<Message, AskFailed> {
    let path = run_dir::admin_socket(run_dir);
    let unreachable = |error| AskFailed::Unreachable { path: path.clone(), error };
    let mut socket = UnixStream::connect(&path).map_err(unreachable)?;
    socket.set_write_timeout(Some(PEER_TIMEOUT)).map_err(unreachable)?;
    socket.write_all(&question.encode()).map_err(unreachable)?;
    // How long a call may take is between it and its function.
    let timeout = (!matches!(question, Message::Replay { .. })).then_some(ANSWER_TIMEOUT);
    read_message(&mut socket, timeout).map_err(|failed| match failed {
        ReadFailed::Io(error) => AskFailed::Unreachable { path: path.clone(), error },
        ReadFailed::Misbehaved(misbehaved) => AskFailed::Unreadable { path: path.clone(), misbehaved },
    })
}

/// Waits for the next connection. False: it is over.
fn wait(listener: &UnixListener, stopped: &UnixStream) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
    // Interrupted: looked at again.
    let _ = poll(&mut polled, None);
    polled[1].revents().is_empty()
}

fn serve_one(
    mut peer: UnixStream,
    answer: &mut impl FnMut(Message) -> Reply,
    waiting: &Arc<()>,
) -> io::Result<()> {
    if peer::credentials(&peer)?.uid != geteuid().as_raw() {
        return Ok(());
    }
    peer.set_write_timeout(Some(PEER_TIMEOUT))?;
    let reply = match read_message(&mut peer, Some(PEER_TIMEOUT)) {
        Ok(question) => answer(question),
        Err(ReadFailed::Io(error)) => return Err(error),
        Err(ReadFailed::Misbehaved(misbehaved)) => {
            Reply::Now(Message::Refused { reasons: misbehaved.to_string() })
        }
    };
    match reply {
        Reply::Now(told) => peer.write_all(&told.encode()),
        Reply::Later(_) if Arc::strong_count(waiting) > LATER_MAX => {
            let reasons =
                format!("{LATER_MAX} answers are being waited for already; try again when one has come");
            peer.write_all(&Message::Refused { reasons }.encode())
        }
        Reply::Later(make) => {
            let share = waiting.clone();
            // If there is no thread for it, the peer sees the socket closed.
            std::thread::Builder::new().name("admin-later".into()).spawn(move || {
                let _ = peer.write_all(&make().encode());
                drop(share);
            })?;
            Ok(())
        }
    }
}

enum ReadFailed {
    Io(io::Error),
    Misbehaved(AdminPeerMisbehaved),
}

/// Reads one message, in `timeout` for all of it.
fn read_message(socket: &mut UnixStream, timeout: Option<Duration>) -> Result<Message, ReadFailed> {
    let give_up_at = timeout.map(|timeout| Instant::now() + timeout);
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        // Bounded by the size that the record names, which `decode` has checked as soon as the record is there.
        match admin::decode(&bytes) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            Err(misbehaved) => return Err(ReadFailed::Misbehaved(misbehaved)),
        }
        let left = give_up_at.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(ReadFailed::Io(io::ErrorKind::TimedOut.into()));
        }
        socket.set_read_timeout(left).map_err(ReadFailed::Io)?;
        match socket.read(&mut buffer) {
            Ok(0) => return Err(ReadFailed::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(size) => bytes.extend_from_slice(&buffer[..size]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadFailed::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(question: Message) -> Reply {
        match question {
            Message::Why { invocation_id: 7 } => Reply::Now(Message::NoSuchCall),
            other => Reply::Now(other),
        }
    }

    #[test]
    fn a_question_has_its_answer_however_long_its_text_is() {
        let dir = tempfile::tempdir().unwrap();
        let _admin = Admin::start(dir.path(), echo).unwrap();
        assert_eq!(ask(dir.path(), &Message::Why { invocation_id: 7 }).unwrap(), Message::NoSuchCall);
        let long = Message::Apply { origin: "/q".into(), text: "#".repeat(4 << 20), is_dry_run: true };
        assert_eq!(ask(dir.path(), &long).unwrap(), long);
    }

    #[test]
    fn nonsense_is_told_what_is_wrong_with_it_and_the_next_one_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let _admin = Admin::start(dir.path(), echo).unwrap();
        let mut peer = UnixStream::connect(run_dir::admin_socket(dir.path())).unwrap();
        peer.write_all(&[0xAB; admin::RECORD_SIZE]).unwrap();
        let Ok(Message::Refused { reasons }) = read_message(&mut peer, Some(PEER_TIMEOUT)) else {
            panic!("not refused")
        };
        assert!(reasons.contains("magic"), "{reasons}");
        assert_eq!(ask(dir.path(), &Message::Why { invocation_id: 7 }).unwrap(), Message::NoSuchCall);
    }

    #[test]
    fn a_peer_that_goes_away_in_the_middle_costs_nobody_anything() {
        let dir = tempfile::tempdir().unwrap();
        let _admin = Admin::start(dir.path(), echo).unwrap();
        let mut peer = UnixStream::connect(run_dir::admin_socket(dir.path())).unwrap();
        peer.write_all(&Message::NoSuchCall.encode()[..50]).unwrap();
        drop(peer);
        assert_eq!(ask(dir.path(), &Message::Why { invocation_id: 7 }).unwrap(), Message::NoSuchCall);
    }

    #[test]
    fn an_answer_that_takes_long_holds_nobody_up_and_of_too_many_the_last_is_refused() {
        // Given: questions that are answered when the test says so.
        let dir = tempfile::tempdir().unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = Arc::new(std::sync::Mutex::new(gone));
        let _admin = Admin::start(dir.path(), move |question| match question {
            Message::Replay { .. } => {
                let gone = gone.clone();
                Reply::Later(Box::new(move || {
                    let _ = gone.lock().unwrap().recv();
                    Message::NoSuchCall
                }))
            }
            other => Reply::Now(other),
        })
        .unwrap();
        let replay = Message::Replay { shelf: admin::Shelf::Quarantine, number: 1 };
        let mut peers: Vec<UnixStream> = (0..LATER_MAX)
            .map(|_| {
                let mut peer = UnixStream::connect(run_dir::admin_socket(dir.path())).unwrap();
                peer.write_all(&replay.encode()).unwrap();
                peer
            })
            .collect();
        // Expect
        assert_eq!(ask(dir.path(), &Message::Stopping).unwrap(), Message::Stopping);
        let told = ask(dir.path(), &replay).unwrap();
        assert!(matches!(&told, Message::Refused { reasons } if reasons.contains("16 answers")), "{told:?}");
        drop(go);
        for peer in &mut peers {
            assert!(matches!(read_message(peer, None), Ok(Message::NoSuchCall)));
        }
    }

    #[test]
    fn without_a_router_nobody_answers() {
        let dir = tempfile::tempdir().unwrap();
        drop(Admin::start(dir.path(), echo).unwrap());
        assert!(!run_dir::admin_socket(dir.path()).exists(), "it takes its socket along");
        let failed = ask(dir.path(), &Message::NoSuchCall).unwrap_err();
        assert!(matches!(failed, AskFailed::Unreachable { .. }), "{failed}");
    }
}
