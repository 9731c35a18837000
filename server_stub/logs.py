"""The server's own logs: structured, one line each, to where ``--log-outputs`` says."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": logging.CRITICAL,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
_ETCDS_NAMES: Final = {"warning": "warn", "critical": "fatal"}
_PACKAGE: Final = __name__.rpartition(".")[0]
_OF_EVERY_RECORD: Final = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}


def configure(level: str, log_format: str, outputs: Sequence[str]) -> None:
    """Send the logs of this package, and warnings of others, to ``outputs``.

    ``outputs`` are "default" and "stderr", "stdout", or paths of files to append to. Raises
    ``OSError`` when a file cannot be opened.
    """
    formatter = _console() if log_format == "console" else JsonLines()
    root = logging.getLogger()
    for output in dict.fromkeys("stderr" if each == "default" else each for each in outputs):
        handler = _handler(output)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger(_PACKAGE).setLevel(_LEVELS[level])


class JsonLines(logging.Formatter):
    """One JSON object a line: level, time and message under etcd's names, then what comes extra."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        line = {
            "level": _ETCDS_NAMES.get(level, level),
            "ts": _time_of(record),
            "msg": record.getMessage(),
            **{name: each for name, each in vars(record).items() if name not in _OF_EVERY_RECORD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, separators=(",", ":"))


def _handler(output: str) -> logging.Handler:
    if output == "stderr":
        return logging.StreamHandler(sys.stderr)
    if output == "stdout":
        return logging.StreamHandler(sys.stdout)
    return logging.FileHandler(output)


def _console() -> logging.Formatter:
    """Return what makes lines for people; only who asks for them waits for structlog to load."""
    import structlog

    def timed(_logger: Any, _method: str, event: Any) -> Any:
        event["ts"] = _time_of(event["_record"])
        return event

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            timed,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
    )


def _time_of(record: logging.LogRecord) -> str:
    """Say when it happened, the same in every output."""
    created = datetime.fromtimestamp(record.created, UTC)
    return created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
