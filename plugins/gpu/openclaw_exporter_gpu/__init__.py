"""GPUs: NVIDIA's by NVML, AMD's and Intel's by the kernel's sysfs; present, absent or unknown.

*Absent* needs evidence: no driver lists a GPU, and neither device files nor the PCI bus show one. Everything
else that goes wrong is *unknown*: what could not be read is left out, and neither tag nor capacity is told.

NVML can hang in the kernel, so the collector asks for a process of its own. A node without any sign of a GPU
is spared it: no device, no driver, no NVML that could be loaded.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_gpu.found import GpuUnknownError
from openclaw_exporter_gpu.gpus import Gpus
from openclaw_exporter_gpu.options import Options

__all__ = ["GpuUnknownError", "Gpus", "Options", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Gpus]:
    """Return the one collector: whether there is a GPU is one answer over all vendors."""
    return [Gpus(options)]
