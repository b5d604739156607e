//! Until when an idle instance is kept: a fixed time, counted from its last call.
//!
//! In: since when an instance has nothing to do.  Out: when it goes, and when one is to be there again.
//! Why a file of its own: another answer to the same question takes its place here.

use crate::time::Nanos;

/// What is to become of an instance that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// When it is told to end, unless it has a call before.
    pub release_at: Nanos,
    /// When one is started though no call asks for it, if by then none is left.
    pub start_at: Nanos,
}

/// The rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    idle_timeout: Nanos,
}

impl KeepAlive {
    pub fn new(idle_timeout: Nanos) -> KeepAlive {
        KeepAlive { idle_timeout }
    }

    /// An instance has had nothing to do since then.
    pub fn on_idle(&self, since: Nanos) -> Outlook {
        Outlook { release_at: since.plus(self.idle_timeout), start_at: Nanos::NEVER }
    }
}
