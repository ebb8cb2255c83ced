"""A plugin for an agent under test: the gpu plugin's real collector, on a machine in a test's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.gpu_cards import BATTLEMAGE, NAVI, Machine

if TYPE_CHECKING:
    from pathlib import Path

_MODULE = """
from pathlib import Path
from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_gpu import Gpus, Options

@hookimpl
def openclaw_collectors():
    return [Gpus(Options(), Path({root!r}))]
"""
_METADATA = "Metadata-Version: 2.1\nName: gpu-here-plugin\nVersion: 1.0\n"


class GpusHere:
    """An AMD card and an Intel card, as a plugin `gpu_here` that an agent finds by PYTHONPATH.

    Args:
        directory: For the tree and the plugin.
    """

    table = "[plugins.gpu]\nenabled = false\n"
    """What the agent's configuration needs: the same GPUs cannot be told by two plugins."""

    def __init__(self, directory: Path) -> None:
        machine = Machine(directory / "machine")
        self.amd = machine.card(1, "0000:03:00.0", "0x1002", "0x740f", "amdgpu", NAVI)
        self.intel = machine.card(2, "0000:04:00.0", "0x8086", "0xe20b", "xe", BATTLEMAGE)
        self.path = directory / "path"
        info = self.path / "gpu_here_plugin-1.0.dist-info"
        info.mkdir(parents=True)
        (self.path / "gpu_here_plugin.py").write_text(_MODULE.format(root=str(machine.root)))
        (info / "METADATA").write_text(_METADATA)
        (info / "entry_points.txt").write_text("[openclaw_exporter]\ngpu_here = gpu_here_plugin\n")

    def set_uncorrected_errors(self, number: int) -> None:
        """Let the AMD card have had so many."""
        (self.amd / "ras" / "umc_err_count").write_text(f"ue: {number}\nce: 12\nde: 2\n")

    def set_temperature(self, celsius: int) -> None:
        """Let the AMD card's junction be so hot."""
        (self.amd / "hwmon" / "hwmon4" / "temp2_input").write_text(f"{celsius * 1000}\n")
