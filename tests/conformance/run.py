#!/usr/bin/env python3
"""Wire conformance: golden vectors both ways and, with --connect, a running router.

    python3 tests/conformance/run.py
    python3 tests/conformance/run.py --connect quickfire://127.0.0.1:7450
    python3 tests/conformance/run.py --connect unix:///run/user/1000/quickfire/router.sock

The running router needs a function that returns its request (--function, default echo).
Exit status 0 if everything passed, 1 otherwise. The last line is "N passed, M failed".
"""

import argparse
import pathlib
import sys

import router_checks
import vector_checks

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "vectors"


def main() -> int:
    arguments = parse_arguments()
    checks = vector_checks.checks(arguments.vectors)
    if arguments.connect:
        checks += router_checks.checks(arguments.connect, arguments.function, arguments.vectors, arguments.timeout)
    failed = sum(not passes(name, check, arguments.verbose) for name, check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


def passes(name: str, check, is_verbose: bool) -> bool:
    try:
        check()
    except Exception as error:  # any failure of one check must leave the others running
        print(f"FAILED {name}: {type(error).__name__}: {error}")
        return False
    if is_verbose:
        print(f"ok     {name}")
    return True


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connect", metavar="URL", help="also check the router that listens there")
    parser.add_argument("--function", default="echo", help="a function that returns its request")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds without progress that fail a check")
    parser.add_argument("--vectors", type=pathlib.Path, default=VECTORS, help="the folder of golden vectors")
    parser.add_argument("--verbose", "-v", action="store_true", help="name the checks that pass, too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
