"""Logging: text for people on a terminal, JSON lines elsewhere, and each cause once.

A condition that lasts (a receiver that is away, a collector that fails) is an *episode*: it is logged
when it begins, when another cause joins and when it ends, and not every minute in between: causes that take
turns are one line each.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Final, Literal, TextIO

import msgspec

LogFormat = Literal["auto", "text", "json"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message` and every extra field."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:34:56 WARNING agent: text`, for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with the project's own prefix taken off the logger's name."""
        return super().format(record).replace(" openclaw_exporter.", " ", 1)


def set_up_logging(
    *, level: str = "INFO", log_format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send the root logger's records to a stream (standard error by default).

    Args:
        level: The least level to show, by its name.
        log_format: `text`, `json`, or `auto`: text where the stream is a terminal.
        stream: Where to write.
    """
    target = stream or sys.stderr
    text = log_format == "text" or (log_format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # httpx logs every request at INFO: one line a minute that says nothing.
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


MAX_CAUSES: Final = 16
"""Causes that are told of one episode; what comes after them is more of the same."""


class _Episode(msgspec.Struct):
    causes: set[str]
    since: float


class Episodes:
    """Logs each lasting condition when it begins, each further cause once, and when it ends.

    Safe to use from several threads. Texts must hold no token, key or heartbeat.

    Example:
        >>> episodes = Episodes(logging.getLogger("doc"))
        >>> episodes.begin("publish", "timeout", "receiver does not answer")
        True
        >>> episodes.begin("publish", "timeout", "receiver does not answer")
        False
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._open: dict[str, _Episode] = {}
        self._lock = threading.Lock()

    def begin(self, condition: str, cause: str, message: str, *, level: int = logging.WARNING) -> bool:
        """Note that a condition holds; log it unless this cause, or `MAX_CAUSES` others, are known.

        Returns:
            True where a line was logged.
        """
        with self._lock:
            known = self._open.setdefault(condition, _Episode(set(), time.monotonic()))
            if cause in known.causes or len(known.causes) >= MAX_CAUSES:
                return False
            known.causes.add(cause)
        self._logger.log(level, "%s", message, extra={"condition": condition, "cause": cause})
        return True

    def end(self, condition: str, message: str) -> bool:
        """Note that a condition is over; log how long it lasted, if it was known to hold.

        Returns:
            True where a line was logged.
        """
        with self._lock:
            known = self._open.pop(condition, None)
        if known is None:
            return False
        seconds = time.monotonic() - known.since
        self._logger.info("%s (after %.0f s)", message, seconds, extra={"condition": condition})
        return True

    def holds(self, condition: str) -> bool:
        """Whether the condition is known to hold now."""
        with self._lock:
            return condition in self._open
