"""The options: where the files are, and which of them are trusted."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from msgspec import Meta

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=31_536_000)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.textfile]`.

    Attributes:
        directory: Where the files are. Without it, the plugin does nothing.
        max_age: Seconds after which a file is stale, so that what it says is unknown.
        owners: Users whose files are read, beside this process's own user, root and the directory's owner.
        max_files: Files that are read at most, in the order of their names.
        max_bytes: The largest file that is read.
    """

    directory: Path | None = None
    max_age: Seconds = 300.0
    owners: tuple[str, ...] = ()
    max_files: Annotated[int, Meta(ge=1, le=1_000)] = 64
    max_bytes: Annotated[int, Meta(ge=64, le=16_777_216)] = 65_536

    def __post_init__(self) -> None:
        """Check the owners.

        Raises:
            ValueError: One is no user of this machine.
        """
        for owner in self.owners:
            user_number(owner)


def user_number(name: str) -> int:
    """Return the number of a user.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"owners: {name!r} is no user of this machine") from None
