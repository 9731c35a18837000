"""How the demos talk."""

from __future__ import annotations

import sys

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def say(what: str, text: str) -> None:
    print(f"{BOLD}{what:<10}{PLAIN} {text}", flush=True)


def show(code: str, answer: object) -> None:
    print(f"{'':10} {code}\n{'':10} {DIM}-> {answer}{PLAIN}", flush=True)
