//! A short name for what a shim was started to do.
//!
//! FNV-1a written out: the standard hasher may change with the compiler, and a router of the next version must
//! come to the same number as the shim of this one. Nobody attacks it: both sides belong to the same user.

use super::{Command, Config, HttpConfig, HttpListen, Runtime};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Config {
    /// Names what a shim was started to do: equal digests mean that a shim and its processes may be kept.
    ///
    /// Holds what the processes are made from (names, commands, how many, where, environment) and where they look for
    /// their router; not the router's own policy (time-outs, queues, listeners), which may change around warm processes.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest(FNV_OFFSET);
        digest.text("shim-digest-1");
        digest.number(self.router.shards.into());
        digest.text(&self.router.run_dir.to_string_lossy());
        digest.number(self.router.reattach_timeout.as_nanos() as u64);
        digest.number(self.functions.len() as u64);
        for function in &self.functions {
            digest.text(&function.name);
            digest.number(match function.command {
                Command::Builtin(_) => 0,
                Command::Program { .. } => 1,
            });
            let words = function.command.words();
            digest.number(words.len() as u64);
            words.iter().for_each(|word| digest.text(word));
            digest.number(function.warm.into());
            // Nothing where nothing is said, so that warm processes of a router that knew no such options are kept.
            if function.runtime != Runtime::Native {
                digest.text("runtime");
                digest.text(function.runtime.name());
                digest.number(function.start_timeout.as_nanos() as u64);
            }
            if function.runtime == Runtime::Http {
                let HttpConfig { listen, path, content_type, ready_path } = &function.http;
                digest.number(match listen {
                    HttpListen::Port => 0,
                    HttpListen::Socket => 1,
                });
                [path, content_type, ready_path.as_ref().unwrap_or(&String::new())]
                    .iter()
                    .for_each(|text| digest.text(text));
            }
            if !function.processors.is_empty() {
                digest.text("processors");
                digest.number(function.processors.len() as u64);
                function.processors.iter().for_each(|processor| digest.number((*processor).into()));
            }
            digest.number(function.env.len() as u64);
            for (name, text) in &function.env {
                digest.text(name);
                digest.text(text);
            }
        }
        digest.0
    }
}

struct Digest(u64);

impl Digest {
    fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// The size first, so that no two lists of texts run together to the same bytes.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
}
