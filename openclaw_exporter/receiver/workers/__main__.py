"""`python -m openclaw_exporter.receiver.workers CHANNEL PASSED`: a worker, started by the receiver."""

from __future__ import annotations

import sys

from openclaw_exporter.receiver.workers.worker import main

main(*map(int, sys.argv[1:]))
