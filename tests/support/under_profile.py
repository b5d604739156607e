"""Runs a program under a container's seccomp profile, as a runtime would, without one: for tests.

Knows the part of the format that our profile uses: names, and one compared argument. Exits with 77 where the kernel's
headers, which say what number a name has, are not installed.

Usage: under_profile.py PROFILE PROGRAM [ARGUMENT...]
"""
import ctypes
import glob
import json
import os
import re
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
# Load a word, compare, mask, return: the instructions of a classic BPF program. NUMBER and ARGUMENTS are offsets in
# what the kernel shows it, `struct seccomp_data`.
LOAD, JUMP_IF_EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
NUMBER, ARGUMENTS = 0, 16


def numbers():
    headers = glob.glob("/usr/include/*/asm/unistd_64.h") + ["/usr/include/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"]
    for header in filter(os.path.exists, headers):
        with open(header) as text:
            found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", text.read(), re.MULTILINE)
        return {name: int(number) for name, number in found}
    sys.exit(77)


def instruction(code, value, jump_true=0, jump_false=0):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def allow_if(number, argument):
    """Allows the call, or goes on behind this part with the number loaded."""
    allow = [instruction(RETURN, RET_ALLOW)]
    if argument:
        masks = argument["op"] == "SCMP_CMP_MASKED_EQ"
        assert masks or argument["op"] == "SCMP_CMP_EQ", argument
        wanted = argument.get("valueTwo", 0) if masks else argument["value"]
        test = [instruction(LOAD, ARGUMENTS + 8 * argument["index"])]
        test += [instruction(AND, argument["value"])] if masks else []
        allow = test + [instruction(JUMP_IF_EQUAL, wanted, 0, 1)] + allow + [instruction(LOAD, NUMBER)]
    return [instruction(JUMP_IF_EQUAL, number, 0, len(allow))] + allow


def compile_profile(profile):
    number_of = numbers()
    code = [instruction(LOAD, NUMBER)]
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW", rule
        arguments = rule.get("args", [])
        assert len(arguments) <= 1, rule
        for name in rule["names"]:
            # Not every architecture has every call.
            if name in number_of:
                code += allow_if(number_of[name], arguments[0] if arguments else None)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    return code + [instruction(RETURN, RET_ERRNO | profile["defaultErrnoRet"])]


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]


with open(sys.argv[1]) as file:
    instructions = compile_profile(json.load(file))
code = b"".join(instructions)
buffer = ctypes.create_string_buffer(code, len(code))
program = Program(len(instructions), ctypes.cast(buffer, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[2], sys.argv[2:])
