//! Runtime `http`: a server that speaks HTTP/1.1, on a loopback port or a Unix socket that the relay names.
//!
//! In: a call.  Out: `POST /`, the payload as the body, the call's attributes as the headers of a CloudEvent in binary mode.
//! Back: a status of 2xx with the result; any other is the function's error.
//! Always: one call at a time, each on a connection of its own, which ends with it: whatever a server says too late or too often
//! can reach no other call. An exchange that breaks costs its connection; the program goes on.
//! Always: a body that ends with its connection, without a length of its own, is whole only if the program lives: the kernel closes the
//! connections of one that is killed as if they had come to their end.
//! Never: more of an answer than a result may have. Never talks to another user's server (`owner.rs`).
//!
//! ```text
//!   spawn ──▶ does it listen? ──▶ is GET of its readiness path 2xx? ──▶ ready
//!                └── asked again after 5 ms, doubled up to 250 ms, until the start time-out ──▶ fault
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper_util::rt::TokioIo;
use rustix::net::SocketAddrUnix;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::fault::{Failed, Fault};
use crate::job::{Attributes, Ended, IsEnded, Job};
use crate::keeper::Instance;
use crate::limits::{EXIT_SETTLE, READY_ATTEMPT, READY_POLL_MAX, READY_POLL_MIN};
use crate::owner;
use crate::plan::{HttpListen, HttpPlan, Plan, Runtime};
use crate::program::{Program, Streams};
use crate::reactor::{Reactor, Waited};

/// The variables that tell the program where to listen; one of them is set.
pub const VARIABLES: [&str; 2] = ["PORT", "SOCKET"];

/// A connection, closed when dropped: at once where its exchange was given up, because the other side has no other way to learn of it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<hyper::Result<()>>,
}

/// One server.
pub struct Http {
    program: Program,
    reactor: Reactor,
    address: Address,
    /// The file of its socket, if it listens on one.
    _file: Option<SocketFile>,
    plan: HttpPlan,
    start_timeout: Duration,
    started_at: Instant,
    is_ready: bool,
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Port(u16),
    Socket(PathBuf),
}

/// Removed with its server.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Instance for Http {
    fn spawn(plan: &Plan) -> Result<Self, Fault> {
        let Runtime::Http(http) = &plan.runtime else { unreachable!("this is the runtime `http`") };
        let address = Address::choose(&http.listen).map_err(Fault::CannotStart)?;
        let (name, text) = match &address {
            Address::Port(port) => ("PORT", port.to_string()),
            Address::Socket(path) => ("SOCKET", path.to_string_lossy().into_owned()),
        };
        Ok(Http {
            reactor: Reactor::new()?,
            program: Program::spawn(&plan.command, &[(name, &text)], Streams::Log, None)?,
            _file: match &address {
                Address::Port(_) => None,
                Address::Socket(path) => Some(SocketFile(path.clone())),
            },
            address,
            plan: http.clone(),
            start_timeout: plan.start_timeout,
            started_at: Instant::now(),
            is_ready: false,
        })
    }

    fn make_ready(&mut self, is_ended: &IsEnded<'_>) -> Result<bool, Fault> {
        if self.is_ready {
            return Ok(true);
        }
        let Http { program, reactor, address, plan, start_timeout, started_at, .. } = self;
        match reactor.wait(program, is_ended, become_ready(address, plan, *started_at + *start_timeout)) {
            Waited::Ended(_) => Ok(false),
            Waited::Exited(exit) => Err(Fault::DiedAtStart(exit)),
            Waited::Done(Err(last)) => {
                // That it does not listen may be because it is no more.
                Err(match self.program.poll_exit() {
                    Some(exit) => Fault::DiedAtStart(exit),
                    None => Fault::StartTimeout { limit: self.start_timeout, last },
                })
            }
            Waited::Done(Ok(())) => {
                if let Address::Port(port) = self.address {
                    owner::check_listener(port).map_err(Fault::NotItsServer)?;
                }
                self.is_ready = true;
                Ok(true)
            }
        }
    }

    fn check_fit(&mut self) -> Result<(), Fault> {
        match self.program.poll_exit() {
            Some(exit) => Err(Fault::Died(exit)),
            None => Ok(()),
        }
    }

    fn call(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), Failed> {
        let Http { program, reactor, address, plan, .. } = self;
        let request = request(plan, job).map_err(|error| Fault::NotHttp(error.to_string()))?;
        match reactor.wait(program, job.is_ended, exchange(address, request, job.result_size_max)) {
            Waited::Done(Ok(answer)) if answer.ends_with_connection && self.program.is_ending() => {
                // How it ended is there in a moment.
                Err(match self.program.wait_exit(EXIT_SETTLE) {
                    Some(exit) => Fault::Died(exit).into(),
                    None => Fault::Closed("the program is ending".into()).into(),
                })
            }
            Waited::Done(Ok(answer)) => {
                if !answer.is_ok {
                    return Err(Failed::Function(answer.error_text(job.result_size_max)));
                }
                *reply = answer.body;
                Ok(())
            }
            // A connection often ends before its answer because the program does.
            Waited::Done(Err(fault)) => Err(match self.program.wait_exit(EXIT_SETTLE) {
                Some(exit) => Fault::Died(exit).into(),
                None => fault.into(),
            }),
            Waited::Exited(exit) => Err(Fault::Died(exit).into()),
            // The connection is closed with the exchange, which is how a server learns of it.
            Waited::Ended(Ended::Cancelled) => Err(Fault::Withdrawn.into()),
            Waited::Ended(ended) => Err(Fault::Stopped(ended).into()),
        }
    }

    fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    fn file(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Port(_) => None,
            Address::Socket(path) => Some(path.clone()),
        }
    }

    fn address(&self) -> Option<Address> {
        Some(self.address.clone())
    }
}

/// What is wrong with a server that nobody calls just now.
pub fn ask_health(
    reactor: &Reactor,
    address: &Address,
    plan: &HttpPlan,
    timeout: Duration,
) -> Result<(), String> {
    let asked = reactor.block_on(async { tokio::time::timeout(timeout, is_ready(address, plan)).await });
    asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", timeout.as_millis())))
}

impl Address {
    fn choose(listen: &HttpListen) -> std::io::Result<Address> {
        match listen {
            // Free a moment ago. Who takes it meanwhile is found out before the first call.
            HttpListen::Port => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                Ok(Address::Port(listener.local_addr()?.port()))
            }
            HttpListen::Socket { folder } => {
                remove_stale(folder);
                let path = folder.join(format!("http-{}.sock", std::process::id()));
                // What the kernel takes as an address is shorter than a path may be.
                SocketAddrUnix::new(&path)?;
                let _ = std::fs::remove_file(&path); // of the instance before this one
                Ok(Address::Socket(path))
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let connected = match self {
            Address::Port(port) => {
                let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).await;
                let stream = stream.inspect(|stream| {
                    // Headers and body go out together; a segment that waits for another would cost 40 ms.
                    let _ = stream.set_nodelay(true);
                });
                greet(stream.map_err(|error| error.to_string())?).await
            }
            Address::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                greet(stream.map_err(|error| error.to_string())?).await
            }
        };
        connected.map_err(|error| error.to_string())
    }
}

async fn greet(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> hyper::Result<Connection> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is told to whoever waits for the answer.
    Ok(Connection { sender, task: tokio::spawn(connection) })
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks again and again; tells what it was last told when the time is over.
async fn become_ready(address: &Address, plan: &HttpPlan, give_up_at: Instant) -> Result<(), String> {
    let mut pause = READY_POLL_MIN;
    loop {
        let asked = tokio::time::timeout(READY_ATTEMPT, is_ready(address, plan)).await;
        let last = match asked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(last)) => last,
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= give_up_at {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(READY_POLL_MAX);
    }
}

async fn is_ready(address: &Address, plan: &HttpPlan) -> Result<(), String> {
    let mut connection = address.connect().await?;
    let Some(path) = &plan.ready_path else { return Ok(()) };
    let request = Request::get(path.as_str()).header(HOST, "localhost").body(Full::default());
    let request = request.map_err(|error| error.to_string())?;
    let response = connection.sender.send_request(request).await.map_err(|error| told(&error))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("GET {path} is answered {status}")) }
}

fn request(plan: &HttpPlan, job: &Job<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let Attributes { function, id, deadline_ms, criticality, idempotency_key, .. } = &job.attributes;
    let mut request = Request::post(plan.path.as_str())
        .header(HOST, "localhost")
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, plan.content_type.as_str())
        .header("ce-specversion", "1.0")
        .header("ce-id", job.attributes.unique_id())
        .header("ce-source", format!("/quickfire/functions/{function}"))
        .header("ce-type", "quickfire.call")
        .header("ce-callid", id.as_str())
        .header("ce-criticality", *criticality);
    if let Some(ms) = deadline_ms {
        request = request.header("ce-deadlinems", *ms);
    }
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key.as_str());
    }
    if let Some(trace) = job.attributes.traceparent() {
        request = request.header("traceparent", trace.as_str()).header("ce-traceparent", trace);
    }
    request.body(Full::new(Bytes::copy_from_slice(job.payload)))
}

/// What a server answered.
struct Answer {
    is_ok: bool,
    status: String,
    /// At most one byte more than a result may have.
    body: Vec<u8>,
    /// It has neither a length nor chunks.
    ends_with_connection: bool,
}

impl Answer {
    /// What its caller gets, of at most this size.
    fn error_text(&self, size_max: usize) -> Vec<u8> {
        let mut text = format!("status: the program answered {}", self.status).into_bytes();
        if !self.body.is_empty() {
            text.extend_from_slice(b"\nbody:\n");
            text.extend_from_slice(&self.body);
        }
        text.truncate(size_max);
        text
    }
}

/// One request, and its answer as far as a result may go.
async fn exchange(
    address: &Address,
    request: Request<Full<Bytes>>,
    result_size_max: usize,
) -> Result<Answer, Fault> {
    let mut connection = address.connect().await.map_err(Fault::CannotConnect)?;
    let response = connection.sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let headers = response.headers();
    let ends_with_connection =
        !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING);
    let (is_ok, status) = (status.is_success(), status.to_string());
    let mut answer = Answer { is_ok, status, body: Vec::new(), ends_with_connection };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let room = result_size_max.saturating_add(1).saturating_sub(answer.body.len());
        answer.body.extend_from_slice(data.get(..room).unwrap_or(&data));
        if answer.body.len() > result_size_max {
            break; // and the connection with the rest is closed
        }
    }
    Ok(answer)
}

fn broken(error: hyper::Error) -> Fault {
    if error.is_parse() { Fault::NotHttp(told(&error)) } else { Fault::Closed(told(&error)) }
}

/// The error with what lies below it.
fn told(error: &dyn std::error::Error) -> String {
    let below = std::iter::successors(error.source(), |error| error.source());
    below.fold(error.to_string(), |text, error| format!("{text}: {error}"))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Socket files of relays that were killed.
fn remove_stale(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("http-")?.strip_suffix(".sock"));
        let is_stale = process.is_some_and(|process| {
            process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists()
        });
        if is_stale {
            // Another relay may be quicker.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
