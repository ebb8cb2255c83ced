"""Finding and opening the files, without following what somebody else has put there."""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin import Capacity, Measurement, Observation, QueueDepth, Tag
from openclaw_exporter.plugin.guard import series_key
from openclaw_exporter_textfile.errors import FileError
from openclaw_exporter_textfile.lines import from_lines
from openclaw_exporter_textfile.options import Options, user_number
from openclaw_exporter_textfile.prometheus import from_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_ENTRIES: Final = 10_000
"""Entries of the directory that are looked at, whatever they are."""

_FUTURE: Final = 60.0
"""Seconds that a file's time may be ahead of the clock, as over NFS; one further ahead would never expire."""

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Files:
    """Every `.jsonl` and `.prom` file of the directory. Names that begin with a dot are left alone."""

    name = "files"

    def __init__(self, directory: Path, options: Options) -> None:
        self._directory = directory
        self._options = options
        self._owners = {os.geteuid(), 0, *map(user_number, options.owners)}

    def collect(self) -> Iterator[Observation | Exception]:
        """Yield what the files say, and an error for each file that cannot be used.

        Raises:
            OSError: The directory cannot be read.
        """
        given: dict[object, str] = {}
        with _opened(self._directory) as directory:
            owners = self._owners | {os.fstat(directory).st_uid}
            names = self._names(directory)
            for name in names[: self._options.max_files]:
                try:
                    observations = self._read(directory, name, owners)
                except FileError as error:
                    yield error
                else:
                    yield from _without_repeats(name, observations, given)
        if len(names) > self._options.max_files:
            left_out = len(names) - self._options.max_files
            yield FileError(f"{left_out} files beyond max_files = {self._options.max_files} are not read")

    def _names(self, directory: int) -> list[str]:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in islice(entries, _MAX_ENTRIES)]
        return sorted(name for name in found if name.endswith((".jsonl", ".prom")) and name[0] != ".")

    def _read(self, directory: int, name: str, owners: set[int]) -> list[Observation]:
        """Return what one file says.

        Raises:
            FileError: It cannot be used.
        """
        try:
            content, age = self._content(directory, name, owners)
        except OSError as error:
            raise FileError(f"{name!r} cannot be read: {error.strerror}") from None
        if not content.endswith(b"\n"):
            raise FileError(f"{name!r} is torn: its last line has no end; write elsewhere, then rename")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise FileError(f"{name!r} is not UTF-8") from None
        read = from_lines if name.endswith(".jsonl") else from_prometheus
        own_age, observations = read(name, text)
        limit = own_age or self._options.max_age
        if age > limit:
            raise FileError(f"{name!r} is {age:.0f} s old, beyond max_age = {limit:g}")
        if age < -_FUTURE:
            raise FileError(f"{name!r} has a time in the future, so it would never be stale")
        return observations

    def _content(self, directory: int, name: str, owners: set[int]) -> tuple[bytes, float]:
        """Return the bytes of a regular file that nobody else could have written, and its age in seconds."""
        file = os.open(name, _OPEN, dir_fd=directory)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise FileError(f"{name!r} is no regular file with one name")
            if status.st_uid not in owners:
                raise FileError(f"{name!r} belongs to user {status.st_uid}, who is not in owners")
            if status.st_mode & stat.S_IWOTH:
                raise FileError(f"{name!r} can be written by everybody")
            if status.st_size > self._options.max_bytes:
                raise FileError(f"{name!r} is larger than max_bytes = {self._options.max_bytes}")
            content = os.read(file, self._options.max_bytes + 1)
            if len(content) != status.st_size:
                raise FileError(f"{name!r} changes while it is read; write elsewhere, then rename")
        finally:
            os.close(file)
        return content, time.time() - status.st_mtime


def _without_repeats(
    name: str, observations: list[Observation], given: dict[object, str]
) -> Iterator[Observation | Exception]:
    """Yield what no file before has given, and one error that names the first series that one has."""
    repeats: list[str] = []
    for observation in observations:
        key = series_key(observation)
        if key in given:
            repeats.append(f"{_label(observation)}, which {given[key]!r} gives")
        else:
            given[key] = name
            yield observation
    if repeats:
        more = f", and {len(repeats) - 1} more" if len(repeats) > 1 else ""
        yield FileError(f"{name!r} gives again {repeats[0]}{more}")


def _label(observation: Observation) -> str:
    match observation:
        case Capacity():
            return f"capacity {observation.resource!r}"
        case QueueDepth():
            return f"queue {observation.topic!r}"
        case Tag():
            return f"tag {observation.key!r}"
        case Measurement():
            return observation.name
    return "uptime"


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
