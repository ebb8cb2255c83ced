"""The options: what is said beside the measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """The table `[plugins.gpu]`.

    Attributes:
        tag: Say `gpu:true` or `gpu:false` in the heartbeat, where it is known for all vendors.
        capacity: Say how many GPUs there are in the heartbeat's capacity (`gpus`), where it is known for all
            vendors.
        integrated: Take Intel's integrated graphics for a GPU too.
    """

    tag: bool = True
    capacity: bool = True
    integrated: bool = False
