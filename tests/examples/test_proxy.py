"""The way into examples/proxy: what its README says to type makes what its configurations expect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from cryptography import x509

from support.skip import binary
from support.tls_proxies import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path


def names(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def test_what_the_readme_says_makes_what_haproxy_wants(tmp_path: Path) -> None:
    program = binary("haproxy", "haproxy")
    (block,) = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    tools = tmp_path / "bin"
    tools.mkdir()
    command = tools / "openclaw-exporter"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m openclaw_exporter "$@"\n')
    command.chmod(0o755)
    etc = tmp_path / "etc"
    script = block.replace("/etc/openclaw", str(etc)).replace("DIR", str(tmp_path / "pki"))
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run([shutil.which("sh") or "sh", "-ec", script], cwd=EXAMPLES, env=environ, check=True)
    assert names(tmp_path / "pki" / "receiver.pem") == ["receiver.example", "receiver.internal"]
    assert names(etc / "proxy" / "server.pem") == ["receiver.example"]
    configuration = etc / "proxy" / "haproxy.cfg"
    configuration.write_text(configuration.read_text().replace("/etc/openclaw", str(etc)))
    checked = subprocess.run(
        [program, "-c", "-f", configuration], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
