//! Stage 7 of 8: the thread of a function process that waits for news from the router, so that the loop over the ring needs no
//! system call to hear of it.
//!
//! In: the attach socket.  Out: [`News`], and a wake-up for a loop that sleeps on its ring.
//! Always: news reaches the loop. It may have looked for news just before, and be just about to sleep, so that one wake-up
//! could come too early and be lost: it is woken again, less and less often, until it has looked. (The router's own wake-ups
//! change the word the loop sleeps on, and so cannot be lost; that word is the router's alone to write.)
//! Never: outlives its [`Watcher`].

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::attach::{self, MESSAGE_SIZE_MAX, Message};
use shm_ring::layout::router_line;
use shm_ring::{Mapped, Memory};

/// First pause between two wake-ups; doubled up to the second.
const WAKE_AGAIN_MIN: Duration = Duration::from_millis(1);
const WAKE_AGAIN_MAX: Duration = Duration::from_millis(64);

/// What the router wants, or that it is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum News {
    /// Go on.
    None = 0,
    /// Finish what was sent, then end.
    Stop = 1,
    /// The socket ended.
    RouterGone = 2,
}

#[derive(Default)]
struct Shared {
    news: AtomicU8,
    /// The news the loop has seen.
    noticed: AtomicU8,
    is_over: AtomicBool,
}

/// The thread, for as long as an attachment is served.
pub struct Watcher {
    shared: Arc<Shared>,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching. `unread` is what came behind the router's answer.
    pub fn start(stream: UnixStream, waker: Mapped, unread: Vec<u8>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watch = Watch { shared: Arc::clone(&shared), stream: stream.try_clone()?, waker, inbox: unread };
        let thread = std::thread::Builder::new()
            .name("quickfire-watch".into())
            .stack_size(64 << 10) // reads records of 64 bytes
            .spawn(move || watch.run())?;
        Ok(Self { shared, stream, thread: Some(thread) })
    }

    /// The latest news. Once it is not `None`, it can only become `RouterGone`.
    #[inline]
    pub fn news(&self) -> News {
        // SYNC(watcher.news): acquires what the router did before it spoke, such as the last requests before Stop.
        let number = self.shared.news.load(Ordering::Acquire);
        let news = match number {
            0 => return News::None,
            1 => News::Stop,
            _ => News::RouterGone,
        };
        self.shared.noticed.store(number, Ordering::Release);
        news
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Ends the thread's read. Fails when the router ended it first.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it does nothing that could panic
        }
    }
}

/// What the thread has.
struct Watch {
    shared: Arc<Shared>,
    stream: UnixStream,
    waker: Mapped,
    inbox: Vec<u8>,
}

impl Watch {
    fn run(mut self) {
        loop {
            let news = self.next_news();
            self.tell(news);
            if news == News::RouterGone {
                return;
            }
        }
    }

    /// Blocks until there is news. A router that talks nonsense is as good as dead.
    fn next_news(&mut self) -> News {
        loop {
            match attach::decode(&self.inbox) {
                Ok(Some((Message::Stop, size))) => {
                    self.inbox.drain(..size);
                    return News::Stop;
                }
                Ok(Some(_)) | Err(_) => return News::RouterGone,
                Ok(None) => {}
            }
            let mut bytes = [0; MESSAGE_SIZE_MAX];
            match self.stream.read(&mut bytes) {
                Ok(0) => return News::RouterGone,
                Ok(size) => self.inbox.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return News::RouterGone,
            }
        }
    }

    fn tell(&self, news: News) {
        // SYNC(watcher.news)
        self.shared.news.store(news as u8, Ordering::Release);
        let mut pause = WAKE_AGAIN_MIN;
        let is_waited_for = || {
            self.shared.noticed.load(Ordering::Acquire) != news as u8
                && !self.shared.is_over.load(Ordering::Acquire)
        };
        while is_waited_for() {
            self.waker.futex_wake(router_line::WAKE_COUNT);
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(WAKE_AGAIN_MAX);
        }
    }
}
