//! The one thing that shards share: what each says of itself, and an inbox for connections it is given.
//!
//! ```text
//!  shard a                                                        shard b
//!  its load, its connections ──▶ post a ──── read now and then ──▶ decides
//!  takes, in every turn ◀── inbox of a ◀──────────── gives ─────── a connection
//! ```
//! Always: a post lies on cache lines of its own and is written by its shard: the load once a period, the connections
//! when one comes or goes. Others read it once a period and when they accept. No call touches it.
//! Always: a connection that is given is served, or its socket is closed: who gives to a shard that has just ended finds
//! out (SYNC(board.gone)).
//! Never: trusted to be of this moment. A shard may be given more than its bound by as many as its inbox holds.
//! Why age is read as idleness: a shard that sleeps writes nothing, and is not woken to say that it has nothing to do.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;
use engine::{Nanos, ShardId};
use queue::{Full, Mailbox};

use super::{Load, PERIOD, Seen};
use crate::frontend::Bell;
use crate::net::moves::Moved;

/// Connections that may be on their way into one shard; one more stays where it is. Two decisions of one giver.
pub const INBOX_COUNT: usize = 64;

/// The posts of all shards.
pub struct Board {
    posts: Box<[CachePadded<Post>]>,
    connections_max: u32,
}

struct Post {
    load: AtomicU32,
    /// When the load was written.
    load_at_ns: AtomicU64,
    connections: AtomicU32,
    /// In the inbox, or about to be: counted by givers, so that a burst is not given to one shard by all that see it idle.
    arriving: AtomicU32,
    standing: AtomicU8,
    inbox: Mailbox<Moved>,
}

/// The values of `standing`; it only grows.
const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const GONE: u8 = 2;

impl Board {
    /// For shards that are woken by `bells` and have at most `connections_max` connections each.
    pub fn new(bells: impl IntoIterator<Item = Arc<Bell>>, connections_max: u32) -> Board {
        let post = |bell: Arc<Bell>| {
            CachePadded::new(Post {
                load: AtomicU32::new(0),
                load_at_ns: AtomicU64::new(0),
                connections: AtomicU32::new(0),
                arriving: AtomicU32::new(0),
                standing: AtomicU8::new(SERVING),
                inbox: Mailbox::with_capacity(INBOX_COUNT, move || bell.ring()),
            })
        };
        Board { posts: bells.into_iter().map(post).collect(), connections_max }
    }

    /// Shards on it.
    pub fn count(&self) -> usize {
        self.posts.len()
    }

    /// What all shards say, as far as known at `now`.
    pub fn read(&self, now: Nanos, seen: &mut Vec<Seen>) {
        seen.clear();
        seen.extend(self.posts.iter().map(|post| {
            let load = Load(post.load.load(Ordering::Relaxed));
            let age = now.since(Nanos(post.load_at_ns.load(Ordering::Relaxed)));
            let silence = age.since(Nanos(2 * PERIOD.0));
            let arriving = post.arriving.load(Ordering::Relaxed);
            let connections = post.connections.load(Ordering::Relaxed).saturating_add(arriving);
            Seen {
                load: load.smoothed(Load(0), silence),
                connections,
                is_open: post.standing.load(Ordering::Relaxed) == SERVING
                    && connections < self.connections_max,
            }
        }));
    }

    /// Takes a connection over to `target`, or gives it back if that one drains or its inbox is full.
    pub fn give(&self, target: ShardId, moved: Moved) -> Result<(), Moved> {
        let Some(post) = self.posts.get(usize::from(target.0)) else { return Err(moved) };
        if post.standing.load(Ordering::Relaxed) != SERVING {
            return Err(moved);
        }
        post.arriving.fetch_add(1, Ordering::Relaxed);
        if let Err(Full(moved)) = post.inbox.push(moved) {
            post.arriving.fetch_sub(1, Ordering::Relaxed);
            return Err(moved);
        }
        // SYNC(board.gone): connection in, fence, look at the standing here; gone, fence, the last look into the inbox in
        // `close`. Of the two fences one is first, and the side behind the other sees what the first wrote.
        fence(Ordering::SeqCst);
        if post.standing.load(Ordering::Relaxed) == GONE {
            post.close_inbox();
        }
        Ok(())
    }

    pub(super) fn note_load(&self, own: usize, now: Nanos, load: Load) {
        self.posts[own].load.store(load.0, Ordering::Relaxed);
        self.posts[own].load_at_ns.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn note_connections(&self, own: usize, count: u32) {
        self.posts[own].connections.store(count, Ordering::Relaxed);
    }

    pub(super) fn note_draining(&self, own: usize) {
        self.posts[own].standing.store(DRAINING, Ordering::Relaxed);
    }

    /// The next connection in the inbox of `own`.
    pub(super) fn take(&self, own: usize) -> Option<Moved> {
        let mut taken = None;
        if self.posts[own].inbox.take(1, |moved| taken = Some(moved)) > 0 {
            self.posts[own].arriving.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    pub(super) fn inbox(&self, own: usize) -> &Mailbox<Moved> {
        &self.posts[own].inbox
    }

    /// Nobody will take anything out of the inbox of `own` any more.
    pub(super) fn close(&self, own: usize) {
        self.posts[own].standing.store(GONE, Ordering::Relaxed);
        // SYNC(board.gone)
        fence(Ordering::SeqCst);
        self.posts[own].close_inbox();
    }
}

impl Post {
    /// Closes the sockets in it.
    fn close_inbox(&self) {
        while self.inbox.take(INBOX_COUNT, drop) > 0 {}
    }
}
