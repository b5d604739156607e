//! The keeper and an HTTP server, with servers that keep the contract and servers that do not.

use std::time::Duration;

use super::*;
use crate::job::tests::{job, job_until, plan};
use crate::keeper::Keeper;
use crate::keeper::tests::{ask, check_answer};

/// A server on its PORT or SOCKET whose `respond(request)` gives the bytes of a response; `request.text` and `request.body` are
/// what came. Where it gives none, the connection is closed.
const SERVER: &str = r#"
import os, re, socket, sys, time
class Request: pass
def read(connection):
    data, request = b"", Request()
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more: return None
        data += more
    head, request.body = data.split(b"\r\n\r\n", 1)
    request.text = head.decode()
    size = re.search(r"content-length: *(\d+)", request.text, re.I)
    while size and len(request.body) < int(size[1]): request.body += connection.recv(65536)
    return request
def ok(body, status="200 OK"): return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)
def listen():
    if "SOCKET" in os.environ:
        listener = socket.socket(socket.AF_UNIX); listener.bind(os.environ["SOCKET"])
    else:
        listener = socket.socket(); listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen()
    return listener
def serve(respond, listener=None):
    listener = listener or listen()
    while True:
        connection, _ = listener.accept()
        while request := read(connection):
            response = respond(request)
            if response is None: break
            connection.sendall(response)
        connection.close()
"#;

fn http() -> HttpPlan {
    HttpPlan {
        listen: HttpListen::Port,
        path: "/call".into(),
        content_type: "text/plain".into(),
        ready_path: None,
        health: None,
    }
}

fn server_of(http: HttpPlan, script: &str) -> Plan {
    plan(Runtime::Http(http), &["python3", "-c", &format!("{SERVER}{script}")])
}

fn server(script: &str) -> Plan {
    server_of(http(), script)
}

fn first_answer(plan: &Plan) -> Result<String, String> {
    ask(&mut Keeper::<Http>::new(plan), &job(b"hello"))
}

fn check_fault(script: &str, expected: &str) {
    check_answer(first_answer(&server(script)), expected);
}

#[test]
fn a_call_is_a_post_with_the_attributes_of_a_cloudevent() {
    let plan = server("serve(lambda request: ok(request.text.encode() + b'\\n' + request.body))");
    let mut full = job(b"hello");
    full.attributes.deadline_ms = Some(17);
    full.attributes.idempotency_key = Some("0a".into());
    full.attributes.trace = Some(Default::default());
    let told = ask(&mut Keeper::<Http>::new(&plan), &full).unwrap();
    let zeros = format!("00-{}-{}-00", "0".repeat(32), "0".repeat(16));
    for line in [
        "POST /call HTTP/1.1",
        "host: localhost",
        "content-type: text/plain",
        "content-length: 5",
        "ce-specversion: 1.0",
        "ce-id: 00000000-0000-0000-0000-00000000001f",
        "ce-source: /quickfire/functions/test",
        "ce-type: quickfire.call",
        "ce-callid: 1f",
        "ce-criticality: normal",
        "ce-deadlinems: 17",
        "idempotency-key: 0a",
        &format!("traceparent: {zeros}"),
        &format!("ce-traceparent: {zeros}"),
        "hello",
    ] {
        assert!(told.lines().any(|found| found == line), "{line}: {told}");
    }
}

#[test]
fn each_call_has_a_connection_of_its_own() {
    // Given a server that would keep its connections
    let script = "connections, calls = 0, 0\nlistener = listen()\nwhile True:\n  connection, _ = listener.accept()\n  \
                  while request := read(connection):\n    calls += 1; connections += 'onnection: close' in request.text\n    \
                  connection.sendall(ok(b'%d of %d' % (calls, connections)))\n  connection.close()";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    for expected in ["1 of 1", "2 of 2", "3 of 3"] {
        assert_eq!(ask(&mut keeper, &job(b"")), Ok(expected.into()));
    }
}

#[test]
fn the_servers_of_pythons_library_are_servers_like_any_other() {
    let script = "import http.server\nclass Handler(http.server.BaseHTTPRequestHandler):\n  def do_POST(self):\n    \
                  body = self.rfile.read(int(self.headers['content-length']))\n    self.send_response(201)\n    \
                  self.end_headers()\n    self.wfile.write(body.upper())\n  def do_GET(self):\n    \
                  self.send_response(200); self.end_headers()\n\
                  http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()";
    let plan = server_of(HttpPlan { ready_path: Some("/ready".into()), ..http() }, script);
    let mut keeper = Keeper::<Http>::new(&plan);
    assert_eq!(ask(&mut keeper, &job(b"hello")), Ok("HELLO".into()));
    assert_eq!(ask(&mut keeper, &job(b"again")), Ok("AGAIN".into()));
}

#[test]
fn a_server_may_listen_on_a_socket_which_is_gone_with_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("http-999999999.sock"), "of a relay that was killed").unwrap();
    let listen = HttpListen::Socket { folder: dir.path().into() };
    let plan = server_of(HttpPlan { listen, ..http() }, "serve(lambda request: ok(request.body))");
    let mut keeper = Keeper::<Http>::new(&plan);
    assert_eq!(ask(&mut keeper, &job(b"hello")), Ok("hello".into()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    keeper.end();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_too_deep_for_a_socket_is_a_fault() {
    let listen = HttpListen::Socket { folder: format!("/{}", "x".repeat(200)).into() };
    let told = first_answer(&server_of(HttpPlan { listen, ..http() }, "")).unwrap_err();
    assert!(told.starts_with("cannot_start: "), "{told}");
}

#[test]
fn it_is_ready_when_its_readiness_path_says_so() {
    // Given a server that has to be asked three times
    let script = "asked = 0\ndef respond(request):\n  global asked\n  asked += request.text.startswith('GET /ready')\n  \
                  if request.text.startswith('POST'): return ok(b'%d' % asked)\n  \
                  return ok(b'', '503 Not yet' if asked < 3 else '204 No Content')\nserve(respond)";
    let plan = server_of(HttpPlan { ready_path: Some("/ready".into()), ..http() }, script);
    let mut keeper = Keeper::<Http>::new(&plan);
    keeper.start_ahead();
    assert_eq!(ask(&mut keeper, &job(b"")), Ok("3".into()));
}

#[test]
fn a_start_that_takes_too_long_or_fails_is_told_by_name() {
    let slow = Plan { start_timeout: Duration::from_millis(50), ..server("time.sleep(1000)") };
    let told = first_answer(&slow).unwrap_err();
    assert!(told.starts_with("start_timeout: the program was not ready after 50 ms: "), "{told}");
    // Given a server that listens, and no more time
    let asked = HttpPlan { ready_path: Some("/ready".into()), ..http() };
    let mut instance = Http::spawn(&server_of(asked, "serve(lambda request: ok(b'', '500 Oh'))")).unwrap();
    let Address::Port(port) = instance.address else { panic!("{:?}", instance.address) };
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    instance.start_timeout = Duration::ZERO;
    let told = instance.make_ready(&|| None).unwrap_err().to_string();
    assert!(told.ends_with("GET /ready is answered 500 Internal Server Error"), "{told}");
    let told = first_answer(&server("print('no model', file=sys.stderr); sys.exit(5)")).unwrap_err();
    let expected = "init_failed: the program ended (exit status: 5) before it was ready\nstderr:\nno model\n";
    assert_eq!(told, expected);
}

#[test]
fn a_start_outlives_the_call_that_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "while not os.path.exists({:?}): time.sleep(0.001)\nserve(lambda request: ok(b'%d' % os.getpid()))",
        go.display().to_string()
    );
    let plan = server(&script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let at_once = || Some(Ended::TimedOut);
    let told = ask(&mut keeper, &job_until(b"", &at_once)).unwrap_err();
    assert!(told.starts_with("starting: "), "{told}");
    let program = keeper.instance().unwrap().program.id();
    std::fs::write(go, "").unwrap();
    assert_eq!(ask(&mut keeper, &job(b"")), Ok(program.to_string()));
}

#[test]
fn another_status_is_the_functions_error_and_the_server_goes_on() {
    let script =
        "serve(lambda request: ok(b'%d' % os.getpid(), '200 OK' if request.body else '404 Not Found'))";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let program = ask(&mut keeper, &job(b"x")).unwrap();
    let told = ask(&mut keeper, &job(b"")).unwrap_err();
    assert_eq!(told, format!("status: the program answered 404 Not Found\nbody:\n{program}"));
    assert_eq!(ask(&mut keeper, &job(b"x")), Ok(program));
}

#[test]
fn broken_exchanges_are_told_by_name_and_cost_their_connection_only() {
    check_fault("serve(lambda request: b'hello\\r\\n\\r\\n')", "not_http: ");
    check_fault("serve(lambda request: b'HTTP/1.1 2000 OK\\r\\n\\r\\n')", "not_http: ");
    check_fault("serve(lambda request: None)", "closed: ");
    let cut = "def respond(request):\n  connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nhalf')\n\
               listener = listen()\nwhile True:\n  connection, _ = listener.accept()\n  \
               if request := read(connection): respond(request)\n  connection.close()";
    check_fault(cut, "closed: ");

    // Expect: the exit is told, unless the machine is so busy that it comes long after the end of the connection.
    let told = first_answer(&server("serve(lambda request: os.kill(os.getpid(), 9))")).unwrap_err();
    assert!(told.starts_with("died: the program ended (signal: 9") || told.starts_with("closed: "), "{told}");

    // Expect: the same process answers after a connection that broke.
    let script = "serve(lambda request: ok(b'%d' % os.getpid()) if request.body else None)";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let program = ask(&mut keeper, &job(b"x")).unwrap();
    assert!(ask(&mut keeper, &job(b"")).unwrap_err().starts_with("closed: "));
    assert_eq!(ask(&mut keeper, &job(b"x")), Ok(program));
}

#[test]
fn what_a_killed_server_had_written_of_a_body_without_a_length_is_no_answer() {
    // Given: a body whose end is that of its connection, and the kernel ends that too.
    let script = "listener = listen()\nwhile True:\n  connection, _ = listener.accept()\n  \
                  if request := read(connection):\n    connection.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhalf')\n    \
                  if request.body == b'die': os.kill(os.getpid(), 9)\n  connection.close()";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    assert_eq!(ask(&mut keeper, &job(b"live")), Ok("half".into()));
    // Expect: the exit is told, unless the machine is so busy that it comes long after the end of the connection.
    let told = ask(&mut keeper, &job(b"die")).unwrap_err();
    assert!(told.starts_with("died: the program ended (signal: 9") || told.starts_with("closed: "), "{told}");
    assert_eq!(ask(&mut keeper, &job(b"live")), Ok("half".into()));
}

#[test]
fn a_second_answer_reaches_no_other_call() {
    let script = "count = 0\ndef respond(request):\n  global count\n  count += 1\n  return ok(b'first') + ok(b'second')\nserve(respond)";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    for _ in 0..3 {
        assert_eq!(ask(&mut keeper, &job(b"")), Ok("first".into()));
    }
}

#[test]
fn a_server_that_ends_between_calls_costs_no_call() {
    let script = "listener = listen()\nconnection, _ = listener.accept()\nread(connection)\nconnection, _ = listener.accept()\n\
                  read(connection); connection.sendall(ok(b'%d' % os.getpid()))";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    while keeper.instance().unwrap().program.wait_exit(Duration::from_secs(1)).is_none() {}
    let second = ask(&mut keeper, &job(b"")).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_server_that_listens_no_more_is_replaced() {
    let script = "listener = listen()\nconnection, _ = listener.accept()\nread(connection)\nconnection, _ = listener.accept()\n\
                  read(connection); listener.close(); connection.sendall(ok(b'%d' % os.getpid())); connection.close(); time.sleep(1000)";
    let plan = server(script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    let told = ask(&mut keeper, &job(b"")).unwrap_err();
    assert!(told.starts_with("cannot_connect: "), "{told}");
    assert_ne!(ask(&mut keeper, &job(b"")).unwrap(), first);
}

#[test]
fn a_result_of_any_size_is_read_up_to_one_byte_more_than_fits() {
    let endless =
        "def respond(request):\n  return b'HTTP/1.1 200 OK\\r\\n\\r\\n' + b'x' * 1000000\nserve(respond)";
    let fits = "serve(lambda request: ok(b'x' * 1024))";
    assert_eq!(first_answer(&server(endless)).map(|result| result.len()), Ok(1025));
    assert_eq!(first_answer(&server(fits)).map(|result| result.len()), Ok(1024));
    // Expect: the same of an error, which has to fit whole.
    let told = first_answer(&server("serve(lambda request: ok(b'x' * 2000, '500 Oh'))")).unwrap_err();
    assert_eq!(told.len(), 1024);
}

#[test]
fn a_cancelled_call_closes_its_connection_and_one_past_its_time_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (begun, closed) = (dir.path().join("begun"), dir.path().join("closed"));
    let script = format!(
        "def respond(request):\n  if not request.body: return ok(b'%d' % os.getpid())\n  open({:?}, 'w').close()\n  \
         if not connection.recv(1): open({:?}, 'w').close()\n\
         listener = listen()\nwhile True:\n  connection, _ = listener.accept()\n  while request := read(connection):\n    \
         response = respond(request)\n    if not response: break\n    connection.sendall(response)\n  connection.close()",
        begun.display().to_string(),
        closed.display().to_string()
    );
    let plan = server(&script);
    let mut keeper = Keeper::<Http>::new(&plan);
    let program = ask(&mut keeper, &job(b"")).unwrap();

    let cancelled = || begun.exists().then_some(Ended::Cancelled);
    let told = ask(&mut keeper, &job_until(b"hang", &cancelled)).unwrap_err();
    assert_eq!(told, "withdrawn: the call was cancelled; its connection was closed");
    while !closed.exists() {
        std::thread::yield_now();
    }
    assert_eq!(ask(&mut keeper, &job(b"")), Ok(program.clone()));

    std::fs::remove_file(&begun).unwrap();
    let timed_out = || begun.exists().then_some(Ended::TimedOut);
    let told = ask(&mut keeper, &job_until(b"hang", &timed_out)).unwrap_err();
    assert_eq!(told, "stopped: the call's time was over; the program was killed");
    assert_ne!(ask(&mut keeper, &job(b"")), Ok(program));
}
