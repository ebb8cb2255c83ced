"""The state directory: one owner, whole files, and what becomes of damaged ones."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from openclaw_exporter.client import StateDirectory
from openclaw_exporter.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def state(place: Path) -> Iterator[StateDirectory]:
    opened = StateDirectory(place)
    yield opened
    opened.close()


def test_a_new_node_id_is_made_once(state: StateDirectory, place: Path) -> None:
    node_id = state.settle_node_id(None, source="")
    assert UUID(node_id).version == 4
    assert state.settle_node_id(None, source="") == node_id
    state.close()
    again = StateDirectory(place)
    assert again.settle_node_id(None, source="") == node_id
    again.close()
    assert place.stat().st_mode & 0o777 == 0o700


def test_another_nodes_directory_is_refused(state: StateDirectory) -> None:
    first, second = str(uuid4()), str(uuid4())
    assert state.settle_node_id(first, source="openclaw.node_id") == first
    with pytest.raises(StateError, match=f"{first}.*openclaw.node_id says {second}.*state_dir"):
        state.settle_node_id(second, source="openclaw.node_id")


def test_epochs_only_rise(state: StateDirectory, place: Path) -> None:
    assert state.next_epoch(1000) == 1000
    assert state.next_epoch(1000) == 1001
    assert state.next_epoch(5) == 1002
    assert state.raise_epoch(5000) == 5000
    assert state.raise_epoch(70) == 5000
    assert state.next_epoch(2000) == 5001
    assert (place / "epoch").read_text() == "5001\n"


@pytest.mark.parametrize("content", [b"", b"soon", b"-7", b"\xff\xfe", b"1" * 30, b"12 34"])
def test_a_damaged_epoch_is_put_aside(
    content: bytes, state: StateDirectory, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "epoch").write_bytes(content)
    assert state.next_epoch(1000) == 1000
    (aside,) = place.glob("epoch.corrupt-*")
    assert aside.read_bytes() == content
    assert aside.name in caplog.text


def test_a_damaged_node_id_is_put_aside(state: StateDirectory, place: Path) -> None:
    (place / "node_id").write_text("nobody\n")
    claimed = str(uuid4())
    assert state.settle_node_id(claimed, source="") == claimed
    assert len(list(place.glob("node_id.corrupt-*"))) == 1


def test_one_directory_has_one_owner(state: StateDirectory, place: Path) -> None:
    with pytest.raises(StateError, match="state_dir of its own"):
        StateDirectory(place)
    state.close()
    StateDirectory(place).close()


def test_another_process_is_kept_out(state: StateDirectory, place: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from openclaw_exporter.client import StateDirectory\n"
        "StateDirectory(Path(sys.argv[1]))"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(place)], capture_output=True, check=False)
    assert ran.returncode == 1
    assert b"another publisher uses" in ran.stderr


def test_the_lock_ends_with_its_process(place: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from openclaw_exporter.client import StateDirectory\n"
        "state = StateDirectory(Path(sys.argv[1])); state.next_epoch(77); os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(place)], check=False)
    assert ran.returncode == -9
    after = StateDirectory(place)
    assert after.next_epoch(0) == 78
    after.close()


def test_a_directory_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    state = StateDirectory(tmp_path / "file" / "state")
    assert not state.writable
    assert state.buffer_path is None
    assert state.next_epoch(1000) == 1000
    claimed = str(uuid4())
    assert state.settle_node_id(claimed, source="") == claimed
    with pytest.raises(StateError, match=r"state_dir writable, or set openclaw.node_id"):
        state.settle_node_id(None, source="")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    state.close()


def test_a_directory_that_turns_read_only(
    state: StateDirectory, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A directory in the way of the temporary file: what root cannot write either.
    (place / ".epoch.new").mkdir()
    assert state.next_epoch(1000) == 1000
    assert "cannot keep epoch" in caplog.text
