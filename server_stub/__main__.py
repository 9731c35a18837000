"""``python -m etcd_pinwheel.server_stub``: the server's command line.

Without a command it runs the server; ``restore`` makes a data directory out of a snapshot.

Exit codes: 0 stopped as told, 1 cannot start or go on, 2 the command line is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
RESTORE = "restore"
PACKAGE = "etcd_pinwheel"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop; returns the exit code.

    Imports nothing before it is needed: ``--version`` is asked by scripts, often, and answers
    in the time that Python takes to start.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(PACKAGE):
            raise
        hint = "what the server needs is installed by: pip install 'etcd-pinwheel[server]'"
        print(f"{missing}; {hint}", file=sys.stderr)
        return EXIT_FAILED


def _main(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-version"]):
        return _print_version()
    if arguments[:1] == [RESTORE]:
        return _restore(arguments[1:])
    from os import environ

    from .config import FlagError, HelpAsked, Settings, VersionAsked, parse

    try:
        settings: Settings = parse(arguments, environ)
    except VersionAsked:
        return _print_version()
    except HelpAsked as answer:
        print(answer)
        return EXIT_STOPPED
    except FlagError as error:
        return _wrong(error)
    from .process import run

    return EXIT_STOPPED if run(settings) else EXIT_FAILED


def _restore(arguments: Sequence[str]) -> int:
    from .config import FlagError, HelpAsked
    from .config.restoring import parse_restore

    try:
        order = parse_restore(arguments)
    except HelpAsked as answer:
        print(answer)
        return EXIT_STOPPED
    except FlagError as error:
        return _wrong(error)
    from .restore import run

    return EXIT_STOPPED if run(order) else EXIT_FAILED


def _wrong(error: Exception) -> int:
    print(f"{error}\nSee --help for the flags.", file=sys.stderr)
    return EXIT_USAGE


def _print_version() -> int:
    from .version import SERVER_VERSION

    release, _, _ = sys.version.partition(" ")
    print(f"etcd Version: {SERVER_VERSION}")
    print("Server: etcd-pinwheel")
    print(f"Python Version: {release}")
    print(f"Python OS/Arch: {sys.platform}/{_architecture()}")
    return EXIT_STOPPED


def _architecture() -> str:
    import os

    return os.uname().machine


if __name__ == "__main__":
    sys.exit(main())
