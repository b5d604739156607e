//! Stage 7 of 8: what a function prints, with the call that prints it.
//!
//! In: text.  Out: lines on stdout or stderr that begin with the mark of the running call (`protocol::log_mark`), so that
//! `quickfire logs NAME --call ID` finds them.
//! Always: what is printed outside a call, in a direct lane (whose calls no router numbers), by another thread than the one that
//! runs the call, or by a program that was started by hand, has no mark: it is then plain text.
//! Always: whole lines in one write, so that the lines of several threads do not mix, as far as pipes allow (4 KiB).
//! Never: costs a call that prints nothing more than to note its number.
//! Why not what `std::eprintln!` prints: nobody but the kernel sees it go by, and a mark before each call would be two system
//! calls for each, also for functions that never print (docs/decisions/0035).

use std::cell::Cell;
use std::fmt::Arguments;
use std::io::{self, Write};

use protocol::log_mark::mark_lines;

thread_local! {
    /// The call that this thread runs.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs one call with its number noted.
#[inline]
pub(super) fn during<T>(call: Option<u64>, run: impl FnOnce() -> T) -> T {
    RUNNING.set(call);
    let ran = run();
    RUNNING.set(None);
    ran
}

/// The number of the call that this thread runs, by which the log knows it: for functions that pass on what others print.
/// None outside a call, and in a direct lane.
pub fn running_call() -> Option<u64> {
    RUNNING.get()
}

/// [`std::println!`] with the call that prints it.
///
/// ```no_run
/// use quickfire_client::serve::{Call, println, serve};
///
/// serve(|call: &Call<'_>| {
///     println!("{} bytes", call.payload().len());
///     Ok("")
/// })?;
/// # Ok::<(), quickfire_client::serve::ServeFailed>(())
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __serve_println {
    ($($text:tt)*) => { $crate::serve::print_line($crate::serve::stdout(), ::std::format_args!($($text)*)) };
}

/// [`std::eprintln!`] with the call that prints it.
#[macro_export]
#[doc(hidden)]
macro_rules! __serve_eprintln {
    ($($text:tt)*) => { $crate::serve::print_line($crate::serve::stderr(), ::std::format_args!($($text)*)) };
}

/// One line, or several. A reader that is gone is no reason to fail a call, so that it is not told.
#[doc(hidden)]
pub fn print_line<W: Write>(mut out: Marked<W>, text: Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

/// The process's stdout, each line marked: for loggers that write to something. Made anew for each message, or kept.
pub fn stdout() -> Marked<io::Stdout> {
    Marked::new(io::stdout())
}

/// The same for stderr.
pub fn stderr() -> Marked<io::Stderr> {
    Marked::new(io::stderr())
}

/// Marks the lines that go through it with the call that runs when they begin.
#[derive(Debug)]
pub struct Marked<W: Write> {
    out: W,
    /// What is not written yet: a line, up to [`UNWRITTEN_SIZE_MAX`].
    unwritten: Vec<u8>,
    is_within_line: bool,
}

/// A longer line goes out in pieces.
const UNWRITTEN_SIZE_MAX: usize = 8 << 10;

impl<W: Write> Marked<W> {
    fn new(out: W) -> Self {
        Self { out, unwritten: Vec::new(), is_within_line: false }
    }
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        mark_lines(bytes, RUNNING.get(), &mut self.is_within_line, &mut self.unwritten);
        // Several lines of one write go out together.
        if !self.is_within_line || self.unwritten.len() >= UNWRITTEN_SIZE_MAX {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.unwritten);
        // Also after a failure: what could not be written must not pile up.
        self.unwritten.clear();
        written?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Marked<W> {
    fn drop(&mut self) {
        if !self.unwritten.is_empty() {
            let _ = self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of what goes in, piece by piece, during a call.
    fn marked(call: Option<u64>, pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut through = Marked::new(&mut out);
        during(call, || pieces.iter().for_each(|piece| through.write_all(piece.as_bytes()).unwrap()));
        drop(through);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_of_a_call_is_marked_once_however_it_comes() {
        assert_eq!(marked(Some(0x1f), &["a\nb", "c", "\n\n"]), "\x1e1f\x1fa\n\x1e1f\x1fbc\n\x1e1f\x1f\n");
        assert_eq!(marked(Some(1), &["no end"]), "\x1e1\x1fno end");
        assert_eq!(marked(Some(1), &[]), "");
    }

    #[test]
    fn outside_a_call_text_is_itself() {
        assert_eq!(marked(None, &["a\nb"]), "a\nb");
        assert_eq!(marked(None, &["\x1e1f\x1fnot its own\n"]), "\x1e\x1f\x1e1f\x1fnot its own\n");
    }

    #[test]
    fn a_line_is_of_the_call_in_which_it_began_and_the_next_of_the_next() {
        let mut out = Vec::new();
        let mut through = Marked::new(&mut out);
        during(Some(1), || through.write_all(b"begun ").unwrap());
        during(Some(2), || through.write_all(b"ended\nnext\n").unwrap());
        through.write_all(b"between\n").unwrap();
        drop(through);
        assert_eq!(out, b"\x1e1\x1fbegun ended\n\x1e2\x1fnext\nbetween\n");
    }

    #[test]
    fn a_line_without_end_is_not_hoarded() {
        let mut out = Vec::new();
        let mut through = Marked::new(&mut out);
        (0..100).for_each(|_| through.write_all(&[b'x'; 1000]).unwrap());
        assert!(through.unwritten.len() < UNWRITTEN_SIZE_MAX + 1000);
        drop(through);
        assert_eq!(out, vec![b'x'; 100_000]);
    }

    #[test]
    fn a_writer_that_fails_fails_the_line_and_keeps_nothing() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut through = Marked::new(Broken);
        assert!(through.write_all(b"lost\n").is_err());
        assert!(through.unwritten.is_empty());
        print_line(Marked::new(Broken), format_args!("nobody reads"));
    }
}
