//! Makes a connection: socket and HELLO, or a ring; and the numbers of all functions known so far.
//!
//! In: an address and wishes.  Out: [`Dialled`], ready for calls, or a [`ConnectError`].
//! Always: blocking, with a time limit on every step; the same code connects first and again.
//! Why names are resolved here: a router that restarted may number its functions anew, and a handle must never
//! reach another function. When a connection opens, every handle is already right for it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::time::Duration;

use protocol::{
    CallId, Extensions, Frame, FrameParts, FunctionId, HEADER_SIZE, Hello, Kind, Status, VERSION, decode,
    decode_header, encode, limits,
};

use crate::error::{ConnectError, ResolveError, RouterMisbehaved};
use crate::ring::Sleeper;
use crate::shm::{self, ShmClient, attach_socket};
use crate::stream::Stream;
use crate::url::RouterUrl;

/// An invocation's id can name as many shards.
const SHARDS_MAX: u32 = 256;

/// The largest payload through a ring unless said otherwise: as much as functions take by default, and as a connection
/// over a socket takes. Memory is used up as far as payloads reach, whatever their bound.
const RING_PAYLOAD_SIZE_DEFAULT: u32 = 1 << 20;

/// What to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) url: RouterUrl,
    pub(crate) timeout: Duration,
    pub(crate) credits: u32,
    pub(crate) frame_size_max: u32,
}

/// A connection on which calls can be made.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) line: Line,
    /// One for each name asked for, in the same order.
    pub(crate) functions: Vec<Result<FunctionId, Status>>,
}

/// What the calls go through.
#[derive(Debug)]
pub(crate) enum Line {
    Socket { stream: Stream, hello: Hello },
    Ring { client: Box<ShmClient>, sleeper: Sleeper },
}

impl Dial {
    /// Connects, greets, and resolves `names`.
    pub(crate) fn dial(&self, names: &[String]) -> Result<Dialled, ConnectError> {
        self.try_dial(names).map_err(|failed| match failed {
            Failed::Io(source) => ConnectError::Unreachable { url: self.url.clone(), source },
            Failed::Misbehaved(source) => ConnectError::RouterMisbehaved { url: self.url.clone(), source },
            Failed::Refused { status, reason } => {
                ConnectError::Refused { url: self.url.clone(), status, reason }
            }
        })
    }

    fn try_dial(&self, names: &[String]) -> Result<Dialled, Failed> {
        match &self.url {
            RouterUrl::Shm(run_dir) => self.dial_ring(run_dir, names),
            RouterUrl::Unix(path) => self.dial_socket(Stream::Unix(UnixStream::connect(path)?), names),
            RouterUrl::Tcp { host, port } => {
                self.dial_socket(Stream::Tcp(self.open_tcp(host, *port)?), names)
            }
        }
    }

    fn dial_socket(&self, stream: Stream, names: &[String]) -> Result<Dialled, Failed> {
        stream.set_timeouts(self.timeout)?;
        let mut buffer = Vec::new();
        let hello = self.greet(&stream, &mut buffer)?;
        let functions = names
            .iter()
            .map(|name| resolve(&stream, name, hello.frame_size_max, &mut buffer))
            .collect::<Result<_, _>>()?;
        stream.set_nonblocking()?;
        Ok(Dialled { line: Line::Socket { stream, hello }, functions })
    }

    /// Asks the shards in turn, beginning anywhere, so that many clients spread over them; the first with room takes it.
    fn dial_ring(&self, run_dir: &Path, names: &[String]) -> Result<Dialled, Failed> {
        let shard_count = (0..SHARDS_MAX).take_while(|shard| attach_socket(run_dir, *shard).exists()).count();
        let shard_count = shard_count.max(1) as u32;
        let first = (RandomState::new().hash_one(process::id()) % u64::from(shard_count)) as u32;
        let mut refused = None;
        for turn in 0..shard_count {
            let shard = (first + turn) % shard_count;
            let attached = ShmClient::attach_shared(run_dir, &self.ring_options(shard));
            let (mut client, sleeper) = match attached {
                Ok(attached) => attached,
                Err(failed) => {
                    // What the first one says is told: the others are worth no more than a try.
                    refused.get_or_insert(failed);
                    continue;
                }
            };
            let functions = names
                .iter()
                .map(|name| match client.resolve(name) {
                    Ok(id) => Ok(Ok(id)),
                    Err(ResolveError::Failed { .. }) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    Err(_) => Ok(Err(Status::UnknownFunction)),
                })
                .collect::<io::Result<_>>()?;
            return Ok(Dialled { line: Line::Ring { client: Box::new(client), sleeper }, functions });
        }
        Err(refused.map_or_else(|| io::Error::from(io::ErrorKind::NotFound).into(), Failed::from))
    }

    fn ring_options(&self, shard: u32) -> shm::Options {
        let payload_size_max = match self.frame_size_max {
            0 => RING_PAYLOAD_SIZE_DEFAULT,
            size => limits::payload_size_max(size, 0),
        };
        shm::Options {
            shard,
            slot_count: self.credits,
            payload_size_max,
            timeout: self.timeout,
            ..shm::Options::default()
        }
    }

    fn open_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    // Small frames must not wait for others to fill a segment.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn greet(&self, stream: &Stream, buffer: &mut Vec<u8>) -> Result<Hello, Failed> {
        buffer.clear();
        let offered = Hello::from_client(self.frame_size_max, self.credits);
        encode(buffer, &FrameParts::hello(), &Extensions::NONE, &offered.encode());
        write_all(stream, buffer)?;
        let frame = read_answer(stream, limits::FRAME_SIZE_MAX_FLOOR, Kind::Hello, Kind::Hello, buffer)?;
        let hello = Hello::decode(frame.payload).map_err(RouterMisbehaved::Malformed)?;
        if (hello.version_min, hello.version_max) != (VERSION, VERSION) {
            return Err(RouterMisbehaved::VersionNotOffered(hello.version_max).into());
        }
        if hello.credits == 0 || hello.credits > limits::CREDITS_MAX {
            return Err(RouterMisbehaved::CreditsOutOfRange(hello.credits).into());
        }
        Ok(hello)
    }
}

/// The connection carries nothing else yet, so slot 0 serves every name in turn.
fn resolve(
    stream: &Stream,
    name: &str,
    frame_size_max: u32,
    buffer: &mut Vec<u8>,
) -> Result<Result<FunctionId, Status>, Failed> {
    buffer.clear();
    encode(buffer, &FrameParts::resolve(CallId::new(0, 0)), &Extensions::NONE, name.as_bytes());
    write_all(stream, buffer)?;
    let frame = read_answer(stream, frame_size_max, Kind::Resolve, Kind::Resolved, buffer)?;
    Ok(match Status::try_from(frame.header.status) {
        Ok(Status::Ok) => Ok(frame.header.function_id),
        // A reason from a newer router still means that there is no such function for us.
        status => Err(status.unwrap_or(Status::UnknownFunction)),
    })
}

/// Reads the one frame that has to come next, the answer to `asked`; a GOAWAY ends the attempt.
fn read_answer<'a>(
    stream: &Stream,
    frame_size_max: u32,
    asked: Kind,
    expected: Kind,
    buffer: &'a mut Vec<u8>,
) -> Result<Frame<'a>, Failed> {
    buffer.resize(HEADER_SIZE, 0);
    read_exact(stream, buffer)?;
    let header_bytes = buffer.first_chunk::<HEADER_SIZE>().ok_or(RouterMisbehaved::AnswerExpected(asked))?;
    let header = decode_header(header_bytes, frame_size_max).map_err(RouterMisbehaved::Malformed)?;
    buffer.resize(header.frame_size as usize, 0);
    read_exact(stream, buffer.get_mut(HEADER_SIZE..).unwrap_or_default())?;
    let frame = decode(buffer, frame_size_max)
        .map_err(RouterMisbehaved::Malformed)?
        .ok_or(RouterMisbehaved::AnswerExpected(asked))?;
    if frame.kind == Kind::Goaway {
        let reason = limits::cut_reason(&String::from_utf8_lossy(frame.payload)).to_owned();
        let status = Status::try_from(frame.header.status).unwrap_or(Status::GoingAway);
        return Err(Failed::Refused { status, reason });
    }
    if frame.kind != expected {
        return Err(RouterMisbehaved::AnswerExpected(asked).into());
    }
    Ok(frame)
}

fn read_exact(stream: &Stream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match stream.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => into = into.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What the system calls "would block" is, with a time limit set, that limit.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

enum Failed {
    Io(io::Error),
    Misbehaved(RouterMisbehaved),
    Refused { status: Status, reason: String },
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<shm::Failed> for Failed {
    fn from(failed: shm::Failed) -> Self {
        match failed {
            shm::Failed::Io(error) => Self::Io(error),
            shm::Failed::Misbehaved(what) => Self::Misbehaved(what),
            shm::Failed::Refused(reason) => {
                Self::Refused { status: shm::status_of(reason), reason: reason.to_string() }
            }
        }
    }
}

impl From<RouterMisbehaved> for Failed {
    fn from(what: RouterMisbehaved) -> Self {
        Self::Misbehaved(what)
    }
}
