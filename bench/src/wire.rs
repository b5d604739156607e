//! One connection that talks to the router a frame at a time: for asking whether it is ready, for numbers of functions,
//! and for connections that only have to be there.
//!
//! Never: measures. It blocks, and allocates as it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use protocol::{CallId, Extensions, Frame, FrameParts, FunctionId, HEADER_SIZE, Hello, Status};

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A greeted connection.
pub struct Conversation {
    stream: TcpStream,
    hello: Hello,
    bytes: Vec<u8>,
}

impl Conversation {
    /// Connects and agrees on credits; 0 leaves them to the router.
    pub fn open(address: &str, credits: u32) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut conversation = Self { stream, hello: Hello::from_client(0, credits), bytes: Vec::new() };
        let hello = conversation.hello.encode();
        conversation.say(&FrameParts::hello(), &hello)?;
        conversation.hello = conversation.hear(|frame| Hello::decode(frame.payload))?.map_err(other)?;
        Ok(conversation)
    }

    /// Calls it may have outstanding.
    pub fn credits(&self) -> u32 {
        self.hello.credits
    }

    /// The router's number of this function; `None` if it has no such function.
    pub fn resolve(&mut self, name: &str) -> std::io::Result<Option<FunctionId>> {
        self.say(&FrameParts::resolve(CallId::new(0, 0)), name.as_bytes())?;
        let (status, id) = self.hear(|frame| (frame.header.status, frame.header.function_id))?;
        Ok((status == Status::Ok as u16).then_some(id))
    }

    /// Whether one call of this function succeeds.
    pub fn answers(&mut self, name: &str) -> std::io::Result<bool> {
        match self.resolve(name)? {
            Some(id) => self.call(id),
            None => Ok(false),
        }
    }

    /// Whether one call of this one succeeds.
    pub fn call(&mut self, id: FunctionId) -> std::io::Result<bool> {
        self.say(&FrameParts::invoke(CallId::new(0, 1), id), b"ready?")?;
        Ok(self.hear(|frame| frame.header.status)? == Status::Ok as u16)
    }

    /// The socket, for who wants to go faster.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn say(&mut self, parts: &FrameParts, payload: &[u8]) -> std::io::Result<()> {
        self.bytes.clear();
        protocol::encode(&mut self.bytes, parts, &Extensions::NONE, payload);
        self.stream.write_all(&self.bytes)
    }

    fn hear<T>(&mut self, read: impl FnOnce(&Frame<'_>) -> T) -> std::io::Result<T> {
        let frame_size_max = protocol::limits::FRAME_SIZE_MAX_DEFAULT;
        let mut header = [0; HEADER_SIZE];
        self.stream.read_exact(&mut header)?;
        let size = protocol::decode_header(&header, frame_size_max).map_err(other)?.frame_size as usize;
        self.bytes.clear();
        self.bytes.extend_from_slice(&header);
        self.bytes.resize(size, 0);
        self.stream.read_exact(&mut self.bytes[HEADER_SIZE..])?;
        let frame = protocol::decode(&self.bytes, frame_size_max).map_err(other)?;
        Ok(read(&frame.ok_or_else(|| other("a frame of the wrong size"))?))
    }
}

fn other(error: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(format!("the router's answer cannot be read: {error}"))
}
