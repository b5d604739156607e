//! Short names: for what a shim is for as long as it lives, and for what the processes of a function are made from.
//!
//! FNV-1a written out: the standard hasher may change with the compiler, and a router of the next version must
//! come to the same number as the shim of this one. Nobody attacks it: both sides belong to the same user.

use super::{
    Command, Config, ContainmentConfig, FunctionConfig, HealthConfig, HttpConfig, HttpListen, LimitsConfig,
    Runtime,
};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Config {
    /// Names what a shim is for as long as it lives: equal digests mean that a shim and its processes may be kept.
    ///
    /// Holds where the processes look for their router and for how long. Not which functions there are: a shim that is kept is
    /// told to look at those of the router that it found.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest(FNV_OFFSET);
        digest.text("shim-digest-2");
        digest.number(self.router.shards.into());
        digest.text(&self.router.run_dir.to_string_lossy());
        digest.number(self.router.reattach_timeout.as_nanos() as u64);
        digest.0
    }
}

impl FunctionConfig {
    /// Names what its processes and their rings are made from; it is the token of the processes. With another one, others
    /// take their place. Not the router's own policy (time-outs, queues), which may change around warm processes.
    pub fn edition(&self) -> u64 {
        let mut digest = Digest(FNV_OFFSET);
        digest.text("edition-1");
        digest.text(&self.name);
        digest.number(match self.command {
            Command::Builtin(_) => 0,
            Command::Program { .. } => 1,
        });
        let words = self.command.words();
        digest.number(words.len() as u64);
        words.iter().for_each(|word| digest.text(word));
        digest.text(self.runtime.name());
        if self.snapshot {
            digest.text("snapshot");
        }
        if self.runtime != Runtime::Native || self.snapshot {
            digest.number(self.start_timeout.as_nanos() as u64);
        }
        if self.runtime == Runtime::Http {
            let HttpConfig { listen, path, content_type, ready_path, health } = &self.http;
            digest.number(match listen {
                HttpListen::Port => 0,
                HttpListen::Socket => 1,
            });
            let ready_path = ready_path.as_deref().unwrap_or_default();
            [path, content_type, ready_path].iter().for_each(|text| digest.text(text));
            if let Some(HealthConfig { interval, timeout, failures_max }) = health {
                [interval, timeout].iter().for_each(|length| digest.number(length.as_nanos() as u64));
                digest.number((*failures_max).into());
            }
        }
        if let Some(containment) = &self.containment {
            let ContainmentConfig {
                is_best_effort,
                has_host_network,
                read,
                write,
                tmp_size_max,
                processes_max,
            } = containment;
            digest.text("process");
            digest.number((*is_best_effort).into());
            digest.number((*has_host_network).into());
            for paths in [read, write] {
                digest.number(paths.len() as u64);
                paths.iter().for_each(|path| digest.text(&path.to_string_lossy()));
            }
            digest.number(*tmp_size_max);
            digest.number((*processes_max).into());
        }
        let LimitsConfig { memory_max, cpu_max, is_best_effort } = self.limits;
        if memory_max.is_some() || cpu_max.is_some() {
            digest.text("limits");
            digest.number(memory_max.unwrap_or_default());
            digest.number(cpu_max.unwrap_or_default().into());
            digest.number(is_best_effort.into());
        }
        digest.number(self.slots.into());
        digest.number(self.payload_size_max.into());
        digest.number(self.processors.len() as u64);
        self.processors.iter().for_each(|processor| digest.number((*processor).into()));
        digest.number(self.env.len() as u64);
        for (name, text) in &self.env {
            digest.text(name);
            digest.text(text);
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
