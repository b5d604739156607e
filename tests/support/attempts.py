#!/usr/bin/python3
"""Tries what its input says, as a function of runtime exec, and prints `did ...` or `refused: ERROR`.

Each is tried by tests/containment.rs in a sandbox, where it must fail, and where that does no harm without one, where it must
succeed: a test that cannot fail shows nothing.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # of x86_64 and aarch64
    "keyctl": (250, 219),
    "bpf": (321, 280),
}
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE = 16384, 1 << 18


def call(result):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def number(name):
    return NUMBERS[name][os.uname().machine == "aarch64"]


def read(path):
    with open(path, "rb") as file:
        return file.read(1 << 20).decode(errors="replace").replace("\0", " ")


def write(path):
    with open(path, "w") as file:
        return file.write("x")


def memory(pid):
    with open(f"/proc/{pid}/maps") as maps:
        begin = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(begin)
        return len(file.read(16))


def ptrace(pid):
    call(libc.ptrace(PTRACE_ATTACH, int(pid), None, None))
    os.waitpid(int(pid), 0x40000000)  # __WALL
    call(libc.ptrace(PTRACE_DETACH, int(pid), None, None))
    return "it"


def kill(pid):
    os.kill(int(pid), 0)
    return "reach it"


def tcp(port):
    socket.create_connection(("127.0.0.1", int(port)), 10).close()
    return "connect"


def loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return tcp(server.getsockname()[1])


def unix(path):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
        return "connect"


def attach(socket_path, name, token):
    """Says that it is a worker of another function. Record: protocol/src/attach.rs."""
    record = struct.pack("<IHHHHIQ", 0x41464B51, 1, 1, len(name), 0, os.getpid(), int(token)).ljust(64, b"\0")
    with socket.socket(socket.AF_UNIX) as router:
        router.connect(socket_path)
        router.sendall(record + name.encode())
        kind, reason = struct.unpack_from("<6xH2xH", router.recv(64))
        return {3: "attach", 5: f"get reason {reason}"}[kind]


def processes(count):
    started = []
    try:
        for _ in range(int(count)):
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
                os._exit(0)
            started.append(pid)
    except OSError as error:
        return f"{len(started)}, then {errno.errorcode[error.errno]}"
    finally:
        for pid in started:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    return len(started)


def hog(megabytes):
    return len(bytearray(b"x") * (int(megabytes) << 20))


def burn(seconds):
    """Computes for so long; tells the percent of one processor that it got."""
    begin = time.monotonic()
    while time.monotonic() - begin < float(seconds):
        pass
    return round(100 * time.process_time() / (time.monotonic() - begin))


def fill(path):
    size = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while size < 64 << 20:
                size += file.write(b"x" * (1 << 16))
    except OSError as error:
        return f"{size}, then {errno.errorcode[error.errno]}"
    finally:
        os.unlink(path)
    return size


def mount():
    # In a namespace of its own, so that it does no harm where it succeeds.
    call(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    return "leave the namespaces"


def mount_at_once():
    call(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
    return "mount"


def keyctl():
    return call(libc.syscall(number("keyctl"), 0, -3, 0)) > 0  # the id of the session's keys


def bpf():
    attributes = ctypes.create_string_buffer(128)
    return call(libc.syscall(number("bpf"), 0, attributes, 128))


def daemon(seconds):
    """Leaves a process behind to which no process group, no parent and no variable of its environment leads."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            for stream in range(3):
                os.close(stream)
            os.execvpe("sleep", ["sleep", seconds], {})
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 20).decode()


def look():
    return " ".join([str(os.getuid()), str(os.getpid()), os.getcwd(), os.environ["HOME"], os.uname().nodename])


def folder(path):
    return ",".join(sorted(os.listdir(path)))


def main():
    name, *arguments = sys.stdin.read().split()
    try:
        print("did", globals()[name](*arguments))
    except OSError as error:
        print("refused:", errno.errorcode[error.errno])


main()
