"""The servers that the receiver is measured beside, pinned to the server's core: Debian's, and bare ones."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from receiver_load import SERVER_CORE

from support.command import trust_tables
from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pki import Pki

NGINX, PUSHGATEWAY, ETCD = "nginx", "prometheus-pushgateway", "etcd"
BARE = "constant", "parsed"
"""What `bare_server.py` can do."""


def is_installed(program: str) -> bool:
    """Whether a peer can be started."""
    return shutil.which(program) is not None


@contextmanager
def started(command: list[str], log: Path, port: int, **environment: str) -> Iterator[int]:
    """Run a server on the server's core until the context ends; yield its pid once its port answers."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdout=output,
            stderr=output,
            env=os.environ | environment,
        )
    try:
        wait_until(lambda: _answers(process, port, log), timeout=60, what=f"{command[0]} ({log})")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, f"it ended:\n{log.read_text()[-2000:]}"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Peers:
    """Starts peers with the same certificates as the receiver's.

    Args:
        directory: For their files.
        pki: The certificates.
    """

    def __init__(self, directory: Path, pki: Pki) -> None:
        self._directory = directory
        self._pki = pki
        self._files = pki.server(name="peer")

    @contextmanager
    def nginx(self) -> Iterator[tuple[int, int]]:
        """Run an nginx that answers 204 to anything; yield pid and port."""
        port = free_port()
        path = self._directory / "nginx.conf"
        path.write_text(f"""
daemon off; worker_processes 1; pid {self._directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600;
  client_body_temp_path {self._directory}/b; proxy_temp_path {self._directory}/p;
  fastcgi_temp_path {self._directory}/f; uwsgi_temp_path {self._directory}/u;
  scgi_temp_path {self._directory}/s;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {self._files.certificate}; ssl_certificate_key {self._files.key};
    ssl_client_certificate {self._pki.ca}; ssl_verify_client on;
    location / {{ return 204; }}
  }}
}}
""")
        with started([NGINX, "-c", str(path), "-p", str(self._directory)], self._log("nginx"), port) as pid:
            yield pid, port

    @contextmanager
    def pushgateway(self) -> Iterator[tuple[int, int]]:
        """Run a Pushgateway without its consistency check, in memory; yield pid and port."""
        port = free_port()
        web = self._directory / "web.yml"
        web.write_text(
            f"tls_server_config:\n  cert_file: {self._files.certificate}\n  key_file: {self._files.key}\n"
            f"  client_ca_file: {self._pki.ca}\n  client_auth_type: RequireAndVerifyClientCert\n"
            "http_server_config:\n  http2: false\n"
        )
        command = [PUSHGATEWAY, f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={web}"]
        command += ["--persistence.file=", "--push.disable-consistency-check", "--log.level=error"]
        with started(command, self._log("pushgateway"), port) as pid:
            yield pid, port

    @contextmanager
    def etcd(self) -> Iterator[tuple[int, int]]:
        """Run a single etcd; yield pid and port."""
        port, peer = free_port(), free_port()
        url, cluster = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        command = [ETCD, f"--data-dir={self._directory}/etcd", f"--listen-client-urls={url}"]
        command += [f"--advertise-client-urls={url}", f"--listen-peer-urls={cluster}"]
        command += [f"--initial-advertise-peer-urls={cluster}", f"--initial-cluster=default={cluster}"]
        command += [f"--cert-file={self._files.certificate}", f"--key-file={self._files.key}"]
        command += ["--client-cert-auth", f"--trusted-ca-file={self._pki.ca}", "--log-level=error"]
        with started(command, self._log("etcd"), port) as pid:
            yield pid, port

    @contextmanager
    def bare(self, kind: str) -> Iterator[tuple[int, int]]:
        """Run a Python server that does next to nothing; yield pid and port."""
        port = free_port()
        files = [str(self._files.certificate), str(self._files.key), str(self._pki.ca)]
        program = str(Path(__file__).with_name("bare_server.py"))
        with started([sys.executable, program, str(port), *files, kind], self._log(kind), port) as pid:
            yield pid, port

    @contextmanager
    def receiver(self, *, insecure: bool = False, extra: str = "") -> Iterator[tuple[int, int]]:
        """Run this receiver with a new registry; yield pid and port."""
        port = free_port()
        path = self._directory / f"receiver-{port}.toml"
        path.write_text(self._receiver_configuration(port, insecure=insecure, extra=extra))
        command = [sys.executable, "-m", "openclaw_exporter", "receiver", "--config", str(path)]
        with ExitStack() as stack:
            pid = stack.enter_context(started(command, self._log("receiver"), port))
            yield pid, port

    def _receiver_configuration(self, port: int, *, insecure: bool, extra: str) -> str:
        common = (
            f"[receiver]\nport = {port}\n{'insecure_dev = true' if insecure else ''}\n{extra}\n"
            f'[receiver.store]\nurl = "sqlite:///{self._directory}/registry-{port}.sqlite"\n'
            f"[receiver.admin]\nport = {free_port()}\n[receiver.limits]\nrate = 1000\nburst = 10000\n"
            # A thousand connections are opened one after the other before the first beat.
            "header_timeout = 300\n"
        )
        return common if insecure else common + trust_tables(self._pki, self._files)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
