"""Runs a program with io_uring_setup(2) answering EPERM, as container runtimes do by default.

Usage: deny_io_uring.py PROGRAM [ARGUMENT...]
"""
import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425  # the same number on every architecture since Linux 5.1
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ALLOW, RET_ERRNO_EPERM = 0x7FFF0000, 0x00050001


def instruction(code, jump_true, jump_false, value):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]


code = b"".join([
    instruction(0x20, 0, 0, 0),  # load the system call's number
    instruction(0x15, 0, 1, IO_URING_SETUP),
    instruction(0x06, 0, 0, RET_ERRNO_EPERM),
    instruction(0x06, 0, 0, RET_ALLOW),
])
buffer = ctypes.create_string_buffer(code, len(code))
program = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
