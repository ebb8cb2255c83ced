"""Becomes another program that ends when the demo ends, however the demo ends.

Run as `python -m openclaw_exporter.cli.demo.launcher PARENT PROGRAM [ARGUMENT …]`. The kernel sends SIGTERM
to this process when its parent dies (PR_SET_PDEATHSIG in prctl(2)), and keeps to that over the exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Tie this process to its parent and become the program that the arguments name."""
    parent, *program = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before the kernel knew
    os.execv(program[0], program)  # noqa: S606 - the demo's own argument list, no shell


if __name__ == "__main__":
    main()
