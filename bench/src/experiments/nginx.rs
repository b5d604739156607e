//! Beside what people use today: calls for each second of the router's CPU time, against requests for each second of
//! CPU time of nginx with a keep-alive upstream. A thousand connections, each with one call outstanding, so that no two
//! calls share a segment.
//!
//! Both sides count the process in the middle alone. nginx speaks HTTP and Quickfire does not: this compares what a call
//! through a general proxy costs with what one through a router made for calls costs, not two proxies.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Load, Pace};
use crate::process;
use crate::quickfire::{Config, Router};
use crate::series::Unit;

const CONNECTIONS: u32 = 1_000;

pub const NGINX: Experiment = Experiment {
    name: "nginx",
    what: "1,000 connections with one call each, beside nginx with a keep-alive upstream",
    seconds: |plan| 2.0 * plan.seconds + 2.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let (Some(nginx), Some(wrk)) = (process::installed("nginx"), process::installed("wrk")) else {
        return Err(NotMeasured::Absent("install nginx-light and wrk".into()));
    };
    // Both sides of the proxy are a thousand descriptors each.
    process::raise_descriptor_limit();
    (bench.tell)("nginx");
    let (per_s, per_cpu_s) = proxied(&nginx, &wrk, bench.plan.seconds)?;
    bench.add("nginx/calls_per_s", Unit::CallsPerS, per_s);
    bench.add("nginx/per_cpu_s", Unit::CallsPerCpuS, per_cpu_s);
    (bench.tell)("quickfire");
    let router = Router::start(&Config::echo(&bench.plan.host))?;
    let load = Load {
        function: "echo",
        transport: Transport::Tcp,
        connections: CONNECTIONS,
        pace: Pace::Window(CONNECTIONS),
        payload_size: 32,
        seconds: bench.plan.seconds,
        criticality: "normal",
        may_be_refused: false,
    };
    let measured = load::run(&router, load)?;
    bench.add_load("quickfire", &measured);
    bench.add("quickfire/per_cpu_s", Unit::CallsPerCpuS, 1e9 / measured.middle_cpu_ns_per_call.max(0.001));
    Ok(())
}

/// Requests per second through the proxy, and for each second of its CPU time.
fn proxied(nginx: &Path, wrk: &Path, seconds: f64) -> Result<(f64, f64), NotMeasured> {
    let dir = tempfile::Builder::new().prefix("nginx-bench-").tempdir()?;
    let port = || Ok::<_, std::io::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let (front_port, back_port) = (port()?, port()?);
    let answer = "a".repeat(32);
    let back =
        format!("server {{ listen 127.0.0.1:{back_port}; location / {{ return 200 \"{answer}\"; }} }}");
    let front = format!(
        "upstream back {{ server 127.0.0.1:{back_port}; keepalive {CONNECTIONS}; }}\n\
         server {{ listen 127.0.0.1:{front_port}; location / {{ proxy_pass http://back; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    );
    let mut back = start(nginx, dir.path(), "back", &back)?;
    let mut front = start(nginx, dir.path(), "front", &front)?;
    let cpu_ns = |pid| process::descendants(pid).into_iter().chain([pid]).map(process::cpu_ns).sum::<u64>();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before_ns = cpu_ns(front.id());
    let output = Command::new(wrk)
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", seconds.ceil().max(1.0))])
        .arg(format!("http://127.0.0.1:{front_port}/"))
        .output();
    let spent_ns = cpu_ns(front.id()) - before_ns;
    process::end(&mut front);
    process::end(&mut back);
    let text = String::from_utf8_lossy(&output?.stdout).into_owned();
    let (requests, per_s) = parse(&text).ok_or_else(|| {
        NotMeasured::Failed(format!("wrk said: {}", text.lines().last().unwrap_or("nothing")))
    })?;
    if requests == 0.0 {
        return Err(NotMeasured::Failed("nginx answered nothing".into()));
    }
    Ok((per_s, requests * 1e9 / spent_ns.max(1) as f64))
}

fn start(nginx: &Path, dir: &Path, name: &str, server: &str) -> std::io::Result<Child> {
    let path = |what: &str| dir.join(format!("{name}.{what}")).display().to_string();
    // One worker as Quickfire has one shard; connections for both sides of the proxy.
    let text = format!(
        "daemon off; worker_processes 1; pid {}; error_log {} crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {}; proxy_temp_path {}; \
         fastcgi_temp_path {}; uwsgi_temp_path {}; scgi_temp_path {};\n{server}\n}}\n",
        path("pid"),
        path("log"),
        path("body"),
        path("proxy"),
        path("fastcgi"),
        path("uwsgi"),
        path("scgi"),
    );
    std::fs::write(dir.join(format!("{name}.conf")), text)?;
    Command::new(nginx)
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(dir.join(format!("{name}.conf")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Requests, and requests per second.
fn parse(text: &str) -> Option<(f64, f64)> {
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    let per_s =
        text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?.trim().parse().ok()?;
    Some((requests, per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_wrk_is_read() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 1000 connections\n  \
                    41234 requests in 2.01s, 7.1MB read\nRequests/sec:  20514.43\nTransfer/sec: 3.5MB\n";
        assert_eq!(parse(text), Some((41234.0, 20514.43)));
        assert_eq!(parse("unable to connect"), None);
    }
}
