"""Which Python a benchmark runs on: how the interpreter was compiled makes a third of every figure."""

from __future__ import annotations

import platform
import shlex
import sys
import sysconfig

_FLAGS = (
    "PY_CFLAGS",
    "PY_CFLAGS_NODIST",
    "PY_CORE_CFLAGS",
    "PY_LDFLAGS",
    "PY_LDFLAGS_NODIST",
    "PY_CORE_LDFLAGS",
)
_WARNING = (
    "  WARNING: this Python was compiled without --enable-optimizations and takes 1.4 times as long; take "
    "figures with a distribution's, or with that of the official container images"
)


def announce() -> None:
    """Print one line about the interpreter, and a warning where it was compiled without optimization."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    profiled, linked = _optimizations()
    if not profiled and sys.base_prefix == "/usr":
        # Debian takes its flags out of what `sysconfig` tells.
        print(
            f"{name}, the distribution's; whether compiled with PGO and LTO is unknown (usually with both)",
            flush=True,
        )
        return
    words = [word for word, used in (("PGO", profiled), ("LTO", linked)) if used]
    print(f"{name}, compiled with {' and '.join(words) or 'neither PGO nor LTO'}", flush=True)
    if not profiled:
        print(_WARNING, flush=True)


def _optimizations() -> tuple[bool, bool]:
    """Return whether the interpreter was compiled with profile-guided and with link-time optimization."""
    arguments = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    flags = " ".join(str(sysconfig.get_config_var(name) or "") for name in _FLAGS)
    profiled = (
        "--enable-optimizations" in arguments or "-fprofile-use" in flags or "-fprofile-instr-use" in flags
    )
    linked = any(word.startswith("--with-lto") and word != "--with-lto=no" for word in arguments)
    return profiled, linked or "-flto" in flags
