"""A process that publishes as fast as virtual beats come, until it is killed. Run by `test_kills.py`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from openclaw_exporter.client import ClientSettings, Publisher, Report, TlsSettings, TokenSettings


class HurriedClock:
    """A clock on which a minute passes in a few milliseconds, so that the beats come as fast as the disk."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() * 5000


def main() -> None:
    given = json.loads(sys.argv[1])
    settings = ClientSettings(
        endpoint=given["endpoint"],
        hostname="child",
        state_dir=Path(given["state"]),
        connect_timeout=1,
        tls=TlsSettings(**{name: Path(path) for name, path in given["tls"].items()}),
        token=TokenSettings(key=Path(given["token"]), kid="k", issuer="i", audience="a"),
    )
    publisher = Publisher(settings, Report, clock=HurriedClock())
    known = publisher.stats.buffered
    print("ready", known, flush=True)
    while True:
        publisher.tick()
        if publisher.stats.buffered > known:
            # Said only after the buffer took it: what is printed must outlive the kill.
            known = publisher.stats.buffered
            print(known, flush=True)


if __name__ == "__main__":
    main()
