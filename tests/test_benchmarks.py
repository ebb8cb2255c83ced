"""A large benchmark in small, so that it still runs when somebody wants its figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_a_million_nodes_in_small_with_a_kill_under_load(tmp_path: Path) -> None:
    flags = ("--nodes", "300", "--beating", "200", "--rate", "50", "--seconds", "8", "--keep", str(tmp_path))
    ran = subprocess.run(
        (sys.executable, str(BENCHMARKS / "bench_million.py"), *flags),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "300 nodes, 512 connections of a proxy, 2 workers" in ran.stdout
    assert re.search(r"^ready after .*, with 100 nodes$", ran.stdout, re.MULTILINE)
    assert re.search(r"^registered in .* a second, others none$", ran.stdout, re.MULTILINE)
    # Before the kill and after it.
    assert len(re.findall(r"^at 50 a second for 8 s: [1-9]\d* recorded", ran.stdout, re.MULTILINE)) == 2
    assert re.search(r"of the last [1-9]\d* acknowledged 0 lost$", ran.stdout, re.MULTILINE)
