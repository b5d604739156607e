//! How the command ends: exit codes, and what is said on the way out.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes, documented in docs/operating/command.md. Scripts depend on them: numbers keep their meaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// It went well.
    Ok,
    /// The function or its process failed the call.
    FunctionError,
    /// Arguments, configuration, or what this machine offers: nothing was begun.
    Usage,
    /// A router answered, and the function did not run to its end.
    Refused,
    /// No router.
    Unreachable,
    /// A code of a function process, for its shim.
    Process(ExitCode),
}

/// Stands at the end of every help.
pub const EXIT_CODES_HELP: &str = "\
Exit codes: 0 ok, 1 function error, 2 usage or configuration, 3 refused or expired, 4 unreachable.";

/// An ending with something to say.
#[derive(Debug)]
pub struct Failure {
    ending: Ending,
    message: String,
}

impl Failure {
    /// Arguments or configuration.
    pub fn usage(message: impl Display) -> Failure {
        Failure::new(Ending::Usage, message)
    }

    /// Any ending.
    pub fn new(ending: Ending, message: impl Display) -> Failure {
        Failure { ending, message: message.to_string() }
    }

    /// What it has to say.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error, one line after the other, and gives the exit code.
    pub fn tell(self) -> ExitCode {
        for line in self.message.lines() {
            // Nowhere to say it is no reason to end otherwise.
            let _ = writeln!(io::stderr(), "quickfire: {line}");
        }
        self.ending.into()
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> ExitCode {
        match ending {
            Ending::Ok => ExitCode::SUCCESS,
            Ending::FunctionError => ExitCode::from(1),
            Ending::Usage => ExitCode::from(2),
            Ending::Refused => ExitCode::from(3),
            Ending::Unreachable => ExitCode::from(4),
            Ending::Process(code) => code,
        }
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    offer(bytes).map(drop)
}

/// The same; false when the reader has seen enough.
pub fn offer(bytes: impl AsRef<[u8]>) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::usage(format!("cannot write to standard output: {error}"))),
    }
}
