"""The proxies of examples/proxy, run by the real programs with nothing changed but paths, ports and names."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from openclaw_exporter.cli.authority import proxy_uri
from openclaw_exporter.receiver.settings import ProxySettings
from support.pki import TRUST_DOMAIN
from support.ports import free_port
from support.skip import binary
from support.wait import wait_until

if TYPE_CHECKING:
    from typing import Self

    from support.pki import Files, Pki

EXAMPLES = Path(__file__).parents[2] / "examples" / "proxy"
TRUSTED = ProxySettings(names=(proxy_uri(TRUST_DOMAIN, "edge"),), addresses=("127.0.0.0/8", "::1/128"))
"""The receiver's table `[receiver.proxy]` for the proxies here."""


class TlsProxy:
    """A proxy between nodes and receivers. A context manager.

    Args:
        directory: For its files.
        pki: Its certificates come from here.
        receiver_ports: Where the receivers listen.
    """

    program: ClassVar[str]
    server: ClassVar[str]
    """The line of the example that names the first receiver."""

    def __init__(self, directory: Path, pki: Pki, *receiver_ports: int) -> None:
        self.directory = directory
        self.pki = pki
        self.port = free_port()
        self._receiver_ports = receiver_ports
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "output.log"
        directory.mkdir()
        for name, files in (("server", pki.server(name="proxy-server")), ("proxy", pki.proxy())):
            shutil.copy(files.certificate, directory / f"{name}.pem")
            shutil.copy(files.key, directory / f"{name}.key")

    @property
    def url(self) -> str:
        """Where nodes connect to."""
        return f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        command = self.command()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens, what=f"{self.program} on its port")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(120)

    def command(self) -> list[str]:
        """Write the configuration and return how to start."""
        raise NotImplementedError

    def tls(self, files: Files) -> ssl.SSLSocket:
        """Return a raw connection of a client."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(files.certificate, files.key)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(plain, server_hostname="localhost")

    def _example(self, name: str, **changes: str) -> str:
        text = (EXAMPLES / name).read_text()
        changes = {
            "/etc/openclaw/ca.pem": str(self.pki.ca),
            "/etc/openclaw/proxy/": f"{self.directory}/",
            "0.0.0.0:8443": f"127.0.0.1:{self.port}",
            self.server: "\n".join(
                self.server.replace("9443", str(port)).replace("receiver-1", f"receiver-{number}")
                for number, port in enumerate(self._receiver_ports, start=1)
            ),
            "receiver.internal": "localhost",
            **changes,
        }
        for before, after in changes.items():
            assert before in text, f"{name} has no {before}"
            text = text.replace(before, after)
        return text

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.program} ended:\n{self._log.read_text()[-3000:]}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class HAProxy(TlsProxy):
    """HAProxy with `examples/proxy/haproxy.cfg`."""

    program = "haproxy"
    server = "    server receiver-1 127.0.0.1:9443 check inter 2s fall 2 rise 1"

    def command(self) -> list[str]:
        """Write the configuration and return how to start."""
        for name in ("server", "proxy"):
            path = self.directory / f"{name}.pem"
            path.write_bytes(path.read_bytes() + (self.directory / f"{name}.key").read_bytes())
            (self.directory / f"{name}.key").unlink()
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(self._example("haproxy.cfg"))
        return [binary(self.program, "haproxy"), "-db", "-f", str(configuration)]


class Nginx(TlsProxy):
    """nginx with `examples/proxy/nginx.conf`."""

    program = "nginx"
    server = "        server 127.0.0.1:9443 max_fails=2 fail_timeout=4s;"

    def command(self) -> list[str]:
        """Write the configuration and return how to start."""
        program = binary(self.program, "nginx")
        if not any(Path(place).exists() for place in ("/usr/lib/nginx/modules/ngx_http_js_module.so",)):
            pytest.skip("njs is not installed (Debian package libnginx-mod-http-js)")
        shutil.copy(EXAMPLES / "client_cert.js", self.directory)
        temporary = "".join(
            f"{kind}_temp_path {self.directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration = self.directory / "nginx.conf"
        pid = {
            "/run/openclaw-nginx.pid": f"{self.directory}/pid",
            "access_log off;": f"access_log off;\n{temporary}",
        }
        configuration.write_text(self._example("nginx.conf", **pid))
        log = self.directory / "error.log"
        return [program, "-e", str(log), "-c", str(configuration), "-g", f"daemon off; error_log {log} info;"]
