//! The client: one connection with a full window, over shared memory or TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use protocol::limits::FRAME_SIZE_MAX_DEFAULT;
use protocol::{CallId, Extensions, FrameParts, FunctionId, HEADER_SIZE, Hello, Status};
use quickfire_client::shm::{Call, Options, ShmClient};

const PAYLOAD: [u8; 32] = [7; 32];
/// The only function there is.
const FUNCTION: FunctionId = FunctionId(0);
/// Bytes written and read at once.
const BATCH_SIZE: usize = 64 * 1024;

pub enum Client {
    Shm(Box<OverShm>),
    Tcp(OverTcp),
}

pub struct OverShm {
    client: ShmClient,
    window: u32,
}

pub struct OverTcp {
    stream: TcpStream,
    /// Slots of calls that may be sent.
    free: Vec<u32>,
    output: Vec<u8>,
    output_sent: usize,
    input: Box<[u8]>,
    /// Bytes at its front that are no whole frame yet.
    input_kept: usize,
}

impl Client {
    pub fn over_shm(dir: &Path, window: u32) -> Client {
        let options = Options { slot_count: window.next_power_of_two(), ..Options::default() };
        let client = ShmClient::attach(dir, &options).expect("room for a client");
        Client::Shm(Box::new(OverShm { client, window }))
    }

    pub fn over_tcp(address: SocketAddr, window: u32) -> Client {
        let mut stream = TcpStream::connect(address).expect("the shard listens");
        stream.set_nodelay(true).expect("a connected socket");
        let mut output = Vec::new();
        let hello = Hello::from_client(0, window).encode();
        protocol::encode(&mut output, &FrameParts::hello(), &Extensions::NONE, &hello);
        stream.write_all(&output).expect("the shard listens");
        let mut header = [0; HEADER_SIZE];
        stream.read_exact(&mut header).expect("the shard answers");
        let size = protocol::decode_header(&header, FRAME_SIZE_MAX_DEFAULT).expect("a frame").frame_size;
        stream.read_exact(&mut vec![0; size as usize - HEADER_SIZE]).expect("the whole of it");
        stream.set_nonblocking(true).expect("a connected socket");
        output.clear();
        let input = vec![0; BATCH_SIZE].into();
        Client::Tcp(OverTcp {
            stream,
            free: (0..window).collect(),
            output,
            output_sent: 0,
            input,
            input_kept: 0,
        })
    }

    /// Takes every answer and fills the window again. Answers how many answers there were.
    pub fn turn(&mut self) -> u64 {
        match self {
            Client::Shm(client) => client.turn(),
            Client::Tcp(client) => client.receive() + client.send(),
        }
    }
}

impl OverShm {
    fn turn(&mut self) -> u64 {
        let mut count = 0;
        while let Some(answered) = self.client.poll().expect("a router of ours") {
            assert_eq!((answered.status, self.client.result(&answered)), (Status::Ok as u8, &PAYLOAD[..]));
            self.client.release(answered);
            count += 1;
        }
        while self.client.outstanding() < self.window {
            self.client.submit(&Call::of(FUNCTION), &PAYLOAD).expect("a slot for each call");
        }
        self.client.flush();
        count
    }
}

impl OverTcp {
    fn receive(&mut self) -> u64 {
        let mut count = 0;
        while let Some(size) = done(self.stream.read(&mut self.input[self.input_kept..])) {
            let end = self.input_kept + size;
            let mut bytes = &self.input[..end];
            while let Some(frame) = protocol::decode(bytes, FRAME_SIZE_MAX_DEFAULT).expect("frames") {
                assert_eq!((frame.header.status, frame.payload), (Status::Ok as u16, &PAYLOAD[..]));
                self.free.push(frame.header.call_id.slot());
                bytes = &bytes[frame.size()..];
                count += 1;
            }
            self.input_kept = bytes.len();
            self.input.copy_within(end - self.input_kept..end, 0);
        }
        count
    }

    fn send(&mut self) -> u64 {
        for slot in self.free.drain(..) {
            let parts = FrameParts::invoke(CallId::new(slot, 1), FUNCTION);
            protocol::encode(&mut self.output, &parts, &Extensions::NONE, &PAYLOAD);
        }
        while self.output_sent < self.output.len() {
            let Some(size) = done(self.stream.write(&self.output[self.output_sent..])) else { return 0 };
            self.output_sent += size;
        }
        self.output.clear();
        self.output_sent = 0;
        0
    }
}

/// How much was moved; `None`: the kernel has no more, or no room.
fn done(moved: std::io::Result<usize>) -> Option<usize> {
    match moved {
        Ok(0) => panic!("the shard closed the connection"),
        Ok(size) => Some(size),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
