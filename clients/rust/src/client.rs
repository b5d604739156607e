//! The client and its function handles: what a program that calls functions holds on to.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use protocol::{FunctionName, Status, limits};

use crate::call::{Answer, Call, CallBuilder};
use crate::connection::Invocation;
use crate::dial::Dial;
use crate::error::{CallError, ConnectError, ResolveError};
use crate::io_thread;
use crate::link::{Link, Patience};
use crate::url::{RouterUrl, UrlError};

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// A connection to a router, kept alive. Cheap to clone; all clones share the connection.
///
/// When the connection breaks, the calls outstanding on it end as [`CallError::Disconnected`]; later calls wait for
/// the next connection, which is tried with growing, random delays of up to two seconds. A router that announces
/// its end (GOAWAY) is left when its last outstanding answer has come. Handles stay valid across connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    url: RouterUrl,
}

/// Options of a connection. From [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    connect_timeout: Duration,
    credits: u32,
    frame_size_max: u32,
}

impl Client {
    /// Connects to `quickfire://HOST:PORT`, `unix:///PATH` or `shm:///RUN_DIR`.
    ///
    /// # Errors
    /// If there is no router, or none that speaks this protocol.
    pub fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url)
    }

    /// Options first.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { connect_timeout: CONNECT_TIMEOUT_DEFAULT, credits: 0, frame_size_max: 0 }
    }

    /// A handle to the function `name`. The router is asked once; later handles of the same name come from memory.
    ///
    /// # Errors
    /// If there is no such function, or the router cannot be asked.
    pub fn function(&self, name: &str) -> Result<Function, ResolveError> {
        FunctionName::new(name)?;
        let link = &self.inner.link;
        let index = loop {
            if let Some(index) = link.known_function(name) {
                break index;
            }
            let resolved = link.resolve(name).map_err(|source| match source {
                CallError::Refused { status: Status::UnknownFunction, .. } => {
                    ResolveError::UnknownFunction { name: name.into() }
                }
                source => ResolveError::Failed { name: name.into(), source },
            })?;
            // A number of a connection that is gone by now is asked for again.
            if let Some(index) = link.remember_function(name, &resolved) {
                break index;
            }
        };
        Ok(Function { client: self.clone(), name: name.into(), index })
    }

    /// While the guard lives, started calls are gathered and written together: when it is dropped, when 64 KiB have
    /// gathered, or when someone waits. Saves a system call for each call where many are started in a row.
    ///
    /// ```no_run
    /// # let client = quickfire_client::Client::connect("quickfire://127.0.0.1:7450")?;
    /// let echo = client.function("echo")?;
    /// let held = client.hold_writes();
    /// let calls: Vec<_> = (0..100).map(|_| echo.call("x").start()).collect::<Result<_, _>>()?;
    /// drop(held);
    /// for call in calls {
    ///     call.wait()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold_writes(&self) -> HeldWrites {
        self.inner.link.hold();
        HeldWrites { client: self.clone() }
    }

    /// Where this client connects.
    pub fn url(&self) -> &RouterUrl {
        &self.inner.url
    }

    pub(crate) fn start(
        &self,
        function: &Function,
        invocation: &Invocation,
        payload: &[u8],
    ) -> Result<Call, CallError> {
        let started = self.inner.link.start(function.index, invocation, payload, Patience::UntilSent)?;
        Ok(Call::new(self.clone(), started))
    }

    pub(crate) fn try_start(
        &self,
        function: &Function,
        invocation: &Invocation,
        payload: &[u8],
    ) -> Result<Call, CallError> {
        let started = self.inner.link.start(function.index, invocation, payload, Patience::None)?;
        Ok(Call::new(self.clone(), started))
    }

    pub(crate) fn call(
        &self,
        function: &Function,
        invocation: &Invocation,
        payload: &[u8],
    ) -> Result<Answer, CallError> {
        self.inner.link.call(function.index, invocation, payload)
    }

    pub(crate) fn link(&self) -> &Link {
        &self.inner.link
    }
}

impl ClientBuilder {
    /// How long connecting may take, and how long a call waits for a lost connection to come back. 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Calls that may be outstanding at once. The router may grant fewer; 0, the default, leaves it to the router.
    pub fn credits(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    /// The largest frame to exchange, in bytes. 0, the default, leaves it to the router; through shared memory it stands for
    /// payloads of 1 MiB, and the smaller it is, the more credits the same memory holds.
    pub fn frame_size_max(mut self, size: u32) -> Self {
        self.frame_size_max = match size {
            0 => 0,
            size => size.max(limits::FRAME_SIZE_MAX_FLOOR),
        };
        self
    }

    /// Connects to `quickfire://HOST:PORT`, `unix:///PATH` or `shm:///RUN_DIR`.
    ///
    /// # Errors
    /// If there is no router, or none that speaks this protocol.
    pub fn connect(self, url: &str) -> Result<Client, ConnectError> {
        self.connect_to(url.parse().map_err(|error: UrlError| ConnectError::Url(error))?)
    }

    /// Connects to an address that was read already.
    ///
    /// # Errors
    /// If there is no router, or none that speaks this protocol.
    pub fn connect_to(self, url: RouterUrl) -> Result<Client, ConnectError> {
        // A time limit of zero means "none" to sockets; the caller meant the opposite.
        let timeout = self.connect_timeout.max(Duration::from_millis(1));
        let dial =
            Dial { url: url.clone(), timeout, credits: self.credits, frame_size_max: self.frame_size_max };
        let dialled = dial.dial(&[])?;
        let link = Arc::new(Link::new(dialled, timeout).map_err(ConnectError::NoResources)?);
        thread::Builder::new()
            .name("quickfire-client".into())
            .spawn({
                let link = Arc::clone(&link);
                move || io_thread::run(&link, &dial)
            })
            .map_err(ConnectError::NoResources)?;
        Ok(Client { inner: Arc::new(Inner { link, url }) })
    }
}

impl Drop for Inner {
    /// Closes the connection. The I/O thread sees it and ends on its own: waiting for it here could wait for an
    /// attempt to connect, or for ourselves, when a waker drops the last handle.
    fn drop(&mut self) {
        self.link.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

/// A function that can be called. Cheap to clone; valid as long as any connection knows the name.
#[derive(Debug, Clone)]
pub struct Function {
    pub(crate) client: Client,
    name: Arc<str>,
    index: usize,
}

impl Function {
    /// A call of this function; see [`CallBuilder`] for what can be said about it.
    pub fn call<'a, P: AsRef<[u8]> + ?Sized>(&'a self, payload: &'a P) -> CallBuilder<'a> {
        CallBuilder::new(self, payload.as_ref())
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// See [`Client::hold_writes`].
#[derive(Debug)]
#[must_use = "writes are held only while this lives"]
pub struct HeldWrites {
    client: Client,
}

impl Drop for HeldWrites {
    fn drop(&mut self) {
        self.client.link().release_hold();
    }
}
