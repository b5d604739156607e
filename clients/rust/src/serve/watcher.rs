//! Stage 7 of 8: the thread of a function process that waits for news from the router, and for the bells of direct lanes,
//! so that the loop over the ring needs no system call to hear of either.
//!
//! In: the attach socket, bells.  Out: [`News`], [`LaneOrder`]s, and a wake-up for a loop that sleeps on its ring.
//! Always: whatever is told reaches the loop. It may have looked just before, and be just about to sleep, so that one wake-up
//! could come too early and be lost: it is woken again, less and less often, until it has looked. (The router's own wake-ups
//! change the word the loop sleeps on, and so cannot be lost; that word is the router's alone to write.)
//! Never: outlives its [`Watcher`].
//! Why others may tell too: the process itself may want its loop to end (`stop.rs`).

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use protocol::attach::{self, MESSAGE_SIZE_MAX, Message};
use rustix::event::{PollFd, PollFlags, poll};
use shm_ring::layout::router_line;
use shm_ring::{Mapped, Memory, pass};

use super::lanes::{Lane, LaneBell, LaneOrder};

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
    orders: Mutex<Vec<LaneOrder>>,
    /// Things ever told, modulo 2^32: news, orders and bells.
    told: AtomicU32,
    /// How many of them the loop has noticed.
    noticed: AtomicU32,
    is_over: AtomicBool,
}

/// Tells the loop that there is something to look at.
#[derive(Clone)]
pub struct Teller {
    shared: Arc<Shared>,
    waker: Arc<Mapped>,
    /// The thread of the loop. What it tells itself it need not be woken for.
    serving: ThreadId,
}

/// The thread, for as long as an attachment is served.
pub struct Watcher {
    teller: Teller,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
    noticed: Cell<u32>,
}

impl Watcher {
    /// Starts watching for the thread that asks for it. `unread` is what came behind the router's answer.
    pub fn start(stream: UnixStream, waker: Arc<Mapped>, unread: Vec<u8>) -> io::Result<Self> {
        let teller = Teller { shared: Arc::default(), waker, serving: thread::current().id() };
        let watch = Watch {
            teller: teller.clone(),
            stream: stream.try_clone()?,
            inbox: unread,
            fds: Vec::new(),
            bells: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("quickfire-watch".into())
            .stack_size(64 << 10) // reads records of 64 bytes
            .spawn(move || watch.run())?;
        Ok(Self { teller, stream, thread: Some(thread), noticed: Cell::new(0) })
    }

    /// For others that have something to tell the loop.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// The latest news, and what has been ordered about lanes since the last time. Once news is not `None`, it can only
    /// become `RouterGone`.
    #[inline]
    pub fn news(&self, obey: impl FnMut(LaneOrder)) -> News {
        // SYNC(watcher.told): acquires what was told, and what the router did before it spoke, such as the last requests
        // before Stop. The same holds of the news itself, which may be newer.
        let shared = &self.teller.shared;
        let told = shared.told.load(Ordering::Acquire);
        if told != self.noticed.get() {
            self.notice(told, obey);
        }
        match shared.news.load(Ordering::Acquire) {
            0 => News::None,
            1 => News::Stop,
            _ => News::RouterGone,
        }
    }

    #[cold]
    fn notice(&self, told: u32, obey: impl FnMut(LaneOrder)) {
        self.noticed.set(told);
        self.teller.shared.noticed.store(told, Ordering::Release);
        let orders =
            std::mem::take(&mut *self.teller.shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
        orders.into_iter().for_each(obey);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.teller.shared.is_over.store(true, Ordering::Release);
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
    teller: Teller,
    stream: UnixStream,
    inbox: Vec<u8>,
    /// Descriptors that came with what is in the inbox.
    fds: Vec<OwnedFd>,
    bells: Vec<Arc<LaneBell>>,
}

impl Watch {
    fn run(mut self) {
        loop {
            match self.next_message() {
                Some(Message::Stop) => self.tell_news(News::Stop),
                Some(Message::LaneOpened(opened)) => {
                    // One that is not what it should be is never served, and ends with its lease.
                    if let Some(lane) = Lane::attach(&opened, std::mem::take(&mut self.fds)) {
                        self.bells.push(lane.bell());
                        self.order(LaneOrder::Open(Box::new(lane)));
                    }
                }
                Some(Message::LaneRevoke { lane_id }) => self.order(LaneOrder::Revoke { lane_id }),
                // A router that talks nonsense is as good as dead.
                Some(_) | None => return self.tell_news(News::RouterGone),
            }
        }
    }

    /// Blocks until the router says something, passing bells on meanwhile. `None`: it is gone, or talks nonsense.
    fn next_message(&mut self) -> Option<Message> {
        loop {
            if let Some((message, size)) = attach::decode(&self.inbox).ok()? {
                self.inbox.drain(..size);
                return Some(message);
            }
            if !self.bells.is_empty() && !self.wait_for_socket()? {
                continue;
            }
            let mut bytes = [0; MESSAGE_SIZE_MAX];
            match pass::receive_with_fds(&self.stream, &mut bytes, &mut self.fds) {
                Ok(0) | Err(_) => return None,
                Ok(size) => self.inbox.extend_from_slice(&bytes[..size]),
            }
        }
    }

    /// Waits for the socket or a bell. `Some(true)`: the socket has something to say.
    fn wait_for_socket(&mut self) -> Option<bool> {
        self.bells.retain(|bell| bell.is_served.load(Ordering::Relaxed));
        let ringing = {
            let mut waited: Vec<PollFd<'_>> = vec![PollFd::new(&self.stream, PollFlags::IN)];
            waited.extend(self.bells.iter().map(|bell| PollFd::new(&bell.bell, PollFlags::IN)));
            match poll(&mut waited, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Some(false),
                Err(_) => return None,
            }
            if !waited[0].revents().is_empty() {
                return Some(true);
            }
            let is_ringing = |fd: &PollFd<'_>| !fd.revents().is_empty();
            waited[1..].iter().map(is_ringing).collect::<Vec<_>>()
        };
        for (bell, _) in self.bells.iter().zip(ringing).filter(|(_, is_ringing)| *is_ringing) {
            // The descriptor was received as an eventfd; if it is none, it counts as rung for nothing, soon too often.
            let _ = bell.bell.silence();
            bell.ring_count.fetch_add(1, Ordering::Relaxed);
        }
        self.teller.tell();
        Some(false)
    }

    fn tell_news(&self, news: News) {
        self.teller.shared.news.store(news as u8, Ordering::Release);
        self.teller.tell();
    }

    fn order(&self, order: LaneOrder) {
        self.teller.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.teller.tell();
    }
}

impl Teller {
    /// Makes the loop look, and waits until it has looked or is over.
    pub fn tell(&self) {
        // SYNC(watcher.told)
        let told = self.shared.told.fetch_add(1, Ordering::Release).wrapping_add(1);
        if thread::current().id() == self.serving {
            return;
        }
        let mut pause = WAKE_AGAIN_MIN;
        let is_waited_for = || {
            // Another may have told more since, and the loop have noticed that: behind is less, modulo 2^32.
            let behind = told.wrapping_sub(self.shared.noticed.load(Ordering::Acquire)).cast_signed();
            behind > 0 && !self.shared.is_over.load(Ordering::Acquire)
        };
        while is_waited_for() {
            self.waker.futex_wake(router_line::WAKE_COUNT);
            thread::park_timeout(pause);
            pause = (pause * 2).min(WAKE_AGAIN_MAX);
        }
    }
}
