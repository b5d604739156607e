//! Opens the connections of a run, before its clock starts: sockets, HELLO, and the function's number.
//!
//! In: the plan.  Out: greeted sockets, still blocking.
//! Always: blocking, with a time limit on each step. All HELLOs are sent before the first answer is read, so that ten
//! thousand connections cost ten thousand round trips in a row once, not twice.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::{
    CallId, Extensions, Frame, FrameParts, FunctionId, HEADER_SIZE, Hello, Kind, Status, decode,
    decode_header, encode, limits,
};

use crate::error::{LoadError, RouterMisbehaved};
use crate::plan::{Plan, Target, Workload};

/// A blocking socket of either sort.
pub(crate) trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// One greeted connection.
pub(crate) struct Dialled {
    pub(crate) socket: DialledSocket,
    pub(crate) hello: Hello,
}

pub(crate) enum DialledSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl DialledSocket {
    fn socket(&mut self) -> &mut dyn Socket {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

/// Opens every connection of the plan.
pub(crate) fn dial(plan: &Plan) -> Result<(Vec<Dialled>, FunctionId), LoadError> {
    raise_descriptor_limit(plan.connections);
    let mut buffer = Vec::new();
    let mut sockets = Vec::with_capacity(plan.connections as usize);
    for index in 0..plan.connections {
        let opened = open(plan).and_then(|mut socket| {
            buffer.clear();
            let hello = Hello::from_client(0, credits_wanted(plan, index));
            encode(&mut buffer, &FrameParts::hello(), &Extensions::NONE, &hello.encode());
            socket.socket().write_all(&buffer)?;
            Ok(socket)
        });
        sockets.push(opened.map_err(|source| Failed::Io(source).at(plan, index))?);
    }
    let mut dialled = Vec::with_capacity(sockets.len());
    for (index, mut socket) in (0..).zip(sockets) {
        let hello = greet(socket.socket(), &mut buffer).map_err(|failed| failed.at(plan, index))?;
        dialled.push(Dialled { socket, hello });
    }
    let function_id = match dialled.first_mut() {
        // Function numbers are the router's, the same on all its connections.
        Some(first) => resolve(plan, &plan.function, first, &mut buffer)?,
        None => return Err(crate::plan::PlanInvalid::NoConnections.into()),
    };
    Ok((dialled, function_id))
}

/// A closed loop needs its window and no more; an open loop takes what it can get, because a call that is due must
/// not wait for a credit if the router would have had one.
fn credits_wanted(plan: &Plan, index: u32) -> u32 {
    match plan.workload {
        Workload::Closed { window } => plan.window_of(window, index),
        Workload::Open { .. } => 0,
    }
}

fn open(plan: &Plan) -> io::Result<DialledSocket> {
    // A time limit of zero means "none" to sockets.
    let timeout = plan.connect_timeout.max(Duration::from_millis(1));
    match &plan.target {
        Target::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(DialledSocket::Unix(stream))
        }
        Target::Shm(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
        Target::Tcp { host, port } => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, timeout) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(timeout))?;
                        stream.set_write_timeout(Some(timeout))?;
                        return Ok(DialledSocket::Tcp(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

fn greet(socket: &mut dyn Socket, buffer: &mut Vec<u8>) -> Result<Hello, Failed> {
    let frame = read_answer(socket, limits::FRAME_SIZE_MAX_FLOOR, Kind::Hello, buffer)?;
    let hello = Hello::decode(frame.payload).map_err(RouterMisbehaved::Malformed)?;
    if hello.credits == 0 {
        return Err(RouterMisbehaved::NoCredits.into());
    }
    // More than this no router grants, and our tables are not to be as large as a number says.
    Ok(Hello { credits: hello.credits.min(limits::CREDITS_MAX), ..hello })
}

/// The router's number of a function.
pub(crate) fn resolve(
    plan: &Plan,
    name: &str,
    on: &mut Dialled,
    buffer: &mut Vec<u8>,
) -> Result<FunctionId, LoadError> {
    buffer.clear();
    encode(buffer, &FrameParts::resolve(CallId::new(0, 0)), &Extensions::NONE, name.as_bytes());
    let socket = on.socket.socket();
    socket.write_all(buffer).map_err(|source| Failed::Io(source).at(plan, 0))?;
    let frame = read_answer(socket, on.hello.frame_size_max, Kind::Resolved, buffer)
        .map_err(|failed| failed.at(plan, 0))?;
    match Status::try_from(frame.header.status).unwrap_or(Status::UnknownFunction) {
        Status::Ok => Ok(frame.header.function_id),
        status => Err(LoadError::UnknownFunction { name: name.to_owned(), status }),
    }
}

/// Reads the one frame that has to come next; a GOAWAY ends the attempt.
fn read_answer<'a>(
    socket: &mut dyn Socket,
    frame_size_max: u32,
    expected: Kind,
    buffer: &'a mut Vec<u8>,
) -> Result<Frame<'a>, Failed> {
    let mut header_bytes = [0; HEADER_SIZE];
    socket.read_exact(&mut header_bytes)?;
    let header = decode_header(&header_bytes, frame_size_max).map_err(RouterMisbehaved::Malformed)?;
    buffer.clear();
    buffer.extend_from_slice(&header_bytes);
    buffer.resize(header.frame_size as usize, 0);
    socket.read_exact(buffer.get_mut(HEADER_SIZE..).unwrap_or_default())?;
    let frame = decode(buffer, frame_size_max)
        .map_err(RouterMisbehaved::Malformed)?
        .ok_or(RouterMisbehaved::AnswerExpected(expected))?;
    match frame.kind {
        kind if kind == expected => Ok(frame),
        Kind::Goaway => {
            Err(Failed::Refused(Status::try_from(frame.header.status).unwrap_or(Status::GoingAway)))
        }
        other => Err(RouterMisbehaved::AnswerExpected(other).into()),
    }
}

/// Thousands of connections need more descriptors than the usual soft limit of 1024. If the system says no, opening
/// the connection that is too many says so.
fn raise_descriptor_limit(connections: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Standard streams, epoll, reports, and whatever the program has open besides.
    const OTHERS: u64 = 64;
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(connections) + OTHERS;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let _left_as_it_is =
            setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    }
}

enum Failed {
    Io(io::Error),
    Misbehaved(RouterMisbehaved),
    Refused(Status),
}

impl Failed {
    fn at(self, plan: &Plan, index: u32) -> LoadError {
        let (target, number, connections) = (plan.target.clone(), index + 1, plan.connections);
        match self {
            Self::Io(source) => LoadError::Unreachable { target, number, connections, source },
            Self::Misbehaved(source) => LoadError::RouterMisbehaved { target, source },
            Self::Refused(status) => LoadError::Refused { target, number, connections, status },
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<RouterMisbehaved> for Failed {
    fn from(what: RouterMisbehaved) -> Self {
        Self::Misbehaved(what)
    }
}
