//! The life of a connection, as one table.
//!
//! ```text
//!  accepted                 hello             drain             last answer out
//! ──────────▶ AwaitHello ──────────▶ Open ──────────▶ Leaving ──────────────────┐
//!                 │ misbehaved,       │ misbehaved,     │ misbehaved,           │
//!                 │ too late, drain   │ slow reader     │ slow reader           ▼
//!                 └───────────────────┴─────────────────┴──────────────────▶  Told ──▶ Lingering ──▶ Closed
//!                                                                   (GOAWAY and all before it out)   (peer closed, or
//!      any state ── peer gone, or broken ──▶ Closed                                                   waited enough)
//!      Open ── left for another shard, where it is Open ──▶ Closed
//! ```
//! Always: a connection that the router ends is told why first (GOAWAY), and is then closed even if it does not listen.
//! Why Lingering: closing a TCP socket with unread bytes makes the kernel throw away what the peer has not read yet,
//! and that would be the very GOAWAY that explains the end.
#![forbid(unsafe_code)]

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Accepted; has not said HELLO.
    AwaitHello,
    /// May call.
    Open,
    /// The router drains: told so, gets the answers of its running calls, may not call.
    Leaving,
    /// Ended by the router: GOAWAY stands last in its output. Nothing it sends counts.
    Told,
    /// Everything went out and the sending half is shut; waiting for the peer to close.
    Lingering,
    /// Gone.
    Closed,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It said HELLO and both sides agree.
    HelloAgreed,
    /// It broke the protocol, or a bound (slow reader, too many connections): there is a GOAWAY to tell.
    Offended,
    /// The router drains.
    DrainBegan,
    /// The router drains and the connection's last call is answered.
    CallsAnswered,
    /// All of its output is with the kernel.
    OutputSent,
    /// Its time for HELLO, or for going, is over.
    TimedOut,
    /// The peer closed, or the socket broke.
    PeerGone,
    /// Another shard has it.
    Left,
}

impl Life {
    /// All of them, for tables.
    pub const ALL: [Life; 6] =
        [Life::AwaitHello, Life::Open, Life::Leaving, Life::Told, Life::Lingering, Life::Closed];

    /// The one place where a connection's state changes.
    pub fn on(self, happening: Happening) -> Life {
        use Happening::*;
        use Life::*;
        match (self, happening) {
            (Closed, _) => Closed,
            (_, PeerGone) => Closed,
            (Open, Left) => Closed,
            (AwaitHello, HelloAgreed) => Open,
            (AwaitHello, Offended | DrainBegan | TimedOut) => Told,
            (Open, Offended) => Told,
            (Open, DrainBegan) => Leaving,
            (Leaving, Offended | CallsAnswered) => Told,
            (Told, OutputSent) => Lingering,
            (Told | Lingering, TimedOut) => Closed,
            // Not an error: events that were on their way when the state changed.
            (state, HelloAgreed | Offended | DrainBegan | CallsAnswered | OutputSent | TimedOut | Left) => {
                state
            }
        }
    }

    /// True while frames from the peer are looked at.
    pub fn is_listening(self) -> bool {
        matches!(self, Life::AwaitHello | Life::Open | Life::Leaving)
    }

    /// True while answers to the peer are written.
    pub fn is_answered(self) -> bool {
        matches!(self, Life::Open | Life::Leaving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAPPENINGS: [Happening; 8] = [
        Happening::HelloAgreed,
        Happening::Offended,
        Happening::DrainBegan,
        Happening::CallsAnswered,
        Happening::OutputSent,
        Happening::TimedOut,
        Happening::PeerGone,
        Happening::Left,
    ];

    /// Every pair, written down: a change of the table shows here.
    const SNAPSHOT: &str = "\
state         HelloAgreed   Offended      DrainBegan    CallsAnswered OutputSent    TimedOut      PeerGone      Left
AwaitHello    Open          Told          Told          -             -             Told          Closed        -
Open          -             Told          Leaving       -             -             -             Closed        Closed
Leaving       -             Told          -             Told          -             -             Closed        -
Told          -             -             -             -             Lingering     Closed        Closed        -
Lingering     -             -             -             -             -             Closed        Closed        -
Closed        -             -             -             -             -             -             -             -
";

    #[test]
    fn every_state_and_happening_is_as_written_down() {
        // Derived `Debug` ignores widths, so that names become text first.
        let cell = |text: String| format!("{text:<13}");
        let names = HAPPENINGS.map(|happening| cell(format!("{happening:?}")));
        let mut table = format!("{} {}\n", cell("state".to_owned()), names.join(" ").trim_end());
        for state in Life::ALL {
            let mut line = cell(format!("{state:?}"));
            for happening in HAPPENINGS {
                let next = state.on(happening);
                let text = if next == state { "-".to_owned() } else { format!("{next:?}") };
                line += &format!(" {}", cell(text));
            }
            table += line.trim_end();
            table += "\n";
        }
        assert_eq!(table, SNAPSHOT, "\n{table}");
    }
}
