//! Quickfire as its users run it: `quickfire up` with a configuration file, real processes, everything switched on.
//!
//! In: a [`Config`].  Out: a [`Router`] whose workers have all attached, with its addresses and its CPU time.
//! Always: each experiment starts its own, on a free port and in a run directory of its own, and stops it when done.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process;
use crate::wire::Conversation;

/// How long a router may take until every function answers.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration file in the making.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lines below `[router]`.
    router: Vec<String>,
    /// Names and lines of the tenants.
    tenants: Vec<(String, String)>,
    /// Names and lines of the functions.
    functions: Vec<(String, String)>,
    /// Of these, the functions with processes: each must answer before anything is measured.
    warm: Vec<String>,
}

impl Config {
    /// No function yet; shards are hosted by `host`.
    pub fn new(host: &str) -> Self {
        let router = vec![format!("host = \"{host}\"")];
        Self { router, tenants: Vec::new(), functions: Vec::new(), warm: Vec::new() }
    }

    /// One `echo` with one process.
    pub fn echo(host: &str) -> Self {
        Self::new(host).function("echo", "echo", 1)
    }

    /// One more line below `[router]`.
    pub fn set(mut self, line: &str) -> Self {
        self.router.push(line.into());
        self
    }

    /// One more tenant.
    pub fn tenant(mut self, name: &str, lines: &str) -> Self {
        self.tenants.push((name.into(), lines.into()));
        self
    }

    /// One more function, with so many processes of a bundled program.
    pub fn function(self, name: &str, program: &str, warm: u32) -> Self {
        self.function_with(name, program, warm, "")
    }

    /// The same with further lines.
    pub fn function_with(self, name: &str, program: &str, warm: u32, lines: &str) -> Self {
        self.command(name, &[format!("builtin:{program}")], warm, lines)
    }

    /// One more function, whose calls wait for so long in each of its processes.
    pub fn waiting(self, name: &str, run_us: u32, warm: u32, lines: &str) -> Self {
        let program = std::env::current_exe().unwrap_or_default().display().to_string();
        self.command(name, &[program, "function-role".into(), run_us.to_string()], warm, lines)
    }

    /// One more function of any program. The lines say how many processes it has; nobody waits until it has them.
    pub fn program(mut self, name: &str, command: &[String], lines: &str) -> Self {
        self.functions.push((name.into(), format!("command = {command:?}\n{lines}")));
        self
    }

    fn command(mut self, name: &str, command: &[String], warm: u32, lines: &str) -> Self {
        let body = format!("command = {command:?}\nwarm = {warm}\n{lines}");
        self.functions.push((name.into(), body));
        if warm > 0 {
            self.warm.push(name.into());
        }
        self
    }

    fn to_toml(&self, listen: &[String]) -> String {
        let mut text = format!("[router]\nlisten = {listen:?}\n{}\n", self.router.join("\n"));
        for (name, body) in &self.tenants {
            text += &format!("\n[tenants.{name}]\n{body}\n");
        }
        for (name, body) in &self.functions {
            text += &format!("\n[functions.{name}]\n{body}\n");
        }
        text
    }
}

/// CPU time so far.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Of the router.
    pub router_ns: u64,
    /// Of the shim and the function processes.
    pub workers_ns: u64,
}

/// A running `quickfire up`; stopped when dropped.
pub struct Router {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Router {
    /// Starts a router and waits until each function that has processes answers.
    pub fn start(config: &Config) -> std::io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        // A run directory that others may enter is refused.
        let private = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("quickfire-bench-").permissions(private).tempdir()?;
        let file = dir.path().join("quickfire.toml");
        std::fs::write(&file, config.to_toml(&listen(&address, dir.path())))?;
        let log = std::fs::File::create(dir.path().join("up.log"))?;
        let child = Command::new(binary()?)
            .args(["up", "--config"])
            .arg(&file)
            .env("QUICKFIRE_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut router = Self { child, address, dir };
        router.wait_until_ready(&config.warm)?;
        Ok(router)
    }

    fn wait_until_ready(&mut self, functions: &[String]) -> std::io::Result<()> {
        let give_up_at = Instant::now() + START_TIMEOUT;
        let mut waiting: Vec<&String> = functions.iter().collect();
        while !waiting.is_empty() {
            if self.child.try_wait()?.is_some() || Instant::now() > give_up_at {
                let log = std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                return Err(std::io::Error::other(format!("quickfire up did not get ready: {last}")));
            }
            if let Ok(mut conversation) = Conversation::open(&self.address, 0) {
                waiting.retain(|name| !conversation.answers(name).unwrap_or(false));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `quickfire load --connect` takes for this way in.
    pub fn url(&self, transport: crate::floor::Transport) -> String {
        let dir = self.dir.path().display();
        match transport {
            crate::floor::Transport::Tcp => format!("quickfire://{}", self.address),
            crate::floor::Transport::Unix => format!("unix://{dir}/router.sock"),
            crate::floor::Transport::Shm | crate::floor::Transport::Direct => format!("shm://{dir}"),
        }
    }

    /// Where a generator may leave its report.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// CPU time of the router process, and of all processes below it.
    pub fn spent(&self) -> Spent {
        let router = self.child.id();
        let workers_ns = process::descendants(router).into_iter().map(process::cpu_ns).sum();
        Spent { router_ns: process::cpu_ns(router), workers_ns }
    }

    /// Bytes the router has resident.
    pub fn resident_size(&self) -> u64 {
        process::resident_size(self.child.id())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Its addresses, over TCP and in its directory.
fn listen(address: &str, dir: &Path) -> [String; 2] {
    [format!("quickfire://{address}"), format!("unix://{}", dir.join("router.sock").display())]
}

/// The `quickfire` program beside this one.
pub fn binary() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("quickfire"))
}

/// Builds `quickfire` into the folder of this program, so that what is measured is what the sources say. Does nothing
/// when it is up to date.
pub fn build() -> std::io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "--quiet", "-p", "quickfire", "--bin", "quickfire"])
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        // A copied pair of programs on a machine without Rust is fine as it is.
        Err(_) if binary()?.exists() => Ok(()),
        Ok(_) => Err(std::io::Error::other("quickfire could not be built")),
        Err(error) => Err(std::io::Error::other(format!("cargo cannot be run to build quickfire: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_lists_its_functions_and_knows_which_must_answer() {
        let config = Config::new("bare")
            .set("shards = 2")
            .function("a", "echo", 1)
            .function_with("b", "noop", 0, "slots = 8")
            .tenant("images", "weight = 3");
        let text = config.to_toml(&["quickfire://127.0.0.1:1".into()]);
        assert!(
            text.starts_with(
                "[router]\nlisten = [\"quickfire://127.0.0.1:1\"]\nhost = \"bare\"\nshards = 2\n"
            )
        );
        assert!(text.contains("[tenants.images]\nweight = 3\n"));
        assert!(text.contains("[functions.b]\ncommand = [\"builtin:noop\"]\nwarm = 0\nslots = 8"));
        assert_eq!(config.warm, ["a"]);
    }
}
