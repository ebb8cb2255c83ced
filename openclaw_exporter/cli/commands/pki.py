"""`pki`: a certificate authority, certificates and token keys, without openssl."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json
from openclaw_exporter.cli.pki_files import ALGORITHMS, PkiDirectory

if TYPE_CHECKING:
    from openclaw_exporter.cli.pki_files import Algorithm, Identity

_directory = click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
_force = click.option("--force", is_flag=True, help="Replace files that exist.")


@click.group(name="pki")
def command() -> None:
    """Make certificates and token keys, to try the exporter or for a small fleet.

    Large fleets bring certificates of their own authority (SPIRE, Vault, cert-manager).
    """


@command.command()
@_directory
@click.option("--trust-domain", default="openclaw.local", show_default=True, help="The SPIFFE trust domain.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1", "::1"),
    show_default=True,
    help="A name or address of the receiver; may be repeated, the first goes into the nodes' URL.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8443, show_default=True, help="Its port.")
@click.option(
    "--algorithm",
    type=click.Choice(ALGORITHMS),
    default="ES256",
    show_default=True,
    help="Of the token key.",
)
@_force
@json_option
def init(
    directory: Path,
    *,
    trust_domain: str,
    hosts: tuple[str, ...],
    port: int,
    algorithm: Algorithm,
    force: bool,
    as_json: bool,
) -> None:
    """Make a CA, the receiver's certificate, and a token key with its key set (JWKS).

    --force makes a new CA: certificates of the old one are worth nothing afterwards.
    """
    made = PkiDirectory.create(
        directory, trust_domain=trust_domain, hosts=hosts, port=port, algorithm=algorithm, force=force
    )
    if as_json:
        print_json(made.summary())
        return
    click.echo(f"A PKI for the trust domain {trust_domain}:")
    for path, what in made.contents():
        click.echo(f"  {path}  {what}")
    place = shlex.quote(str(directory))
    click.echo("\nNext, start the receiver and make a node's certificate:")
    click.echo(f"  openclaw-exporter receiver --config {shlex.quote(str(made.receiver_configuration))}")
    click.echo(f"  openclaw-exporter pki node {place} --node-id new")


@command.command()
@_directory
@click.option("--node-id", required=True, metavar="UUID|new", help="The node's id; 'new' makes one.")
@_force
@json_option
def node(directory: Path, *, node_id: str, force: bool, as_json: bool) -> None:
    """Issue a node's certificate, with a configuration for its agent."""
    made = PkiDirectory.open(directory).issue_node(node_id, force=force)
    if as_json:
        print_json(_identity(made) | {"configuration": str(made.configuration)})
        return
    click.echo(f"Node {made.name}:")
    click.echo(f"  {made.certificate}  certificate\n  {made.key}  private key")
    click.echo(f"  {made.configuration}  configuration of its agent")
    click.echo("\nNext, start the agent:")
    click.echo(f"  openclaw-exporter agent --config {shlex.quote(str(made.configuration))}")


@command.command()
@_directory
@click.option("--name", required=True, help="Who reads: dashboard, scheduler, …")
@_force
@json_option
def reader(directory: Path, *, name: str, force: bool, as_json: bool) -> None:
    """Issue a certificate that may read the registry."""
    pki = PkiDirectory.open(directory)
    made = pki.issue_reader(name, force=force)
    if as_json:
        print_json(_identity(made))
        return
    click.echo(f"Reader {made.name}:")
    click.echo(f"  {made.certificate}  certificate\n  {made.key}  private key")
    flags = {"--endpoint": pki.endpoint, "--ca": pki.ca, "--certificate": made.certificate, "--key": made.key}
    line = " ".join(f"{flag} {shlex.quote(str(value))}" for flag, value in flags.items())
    click.echo(f"\nNext, read the registry:\n  openclaw-exporter nodes {line}")


@command.command()
@_directory
@click.option("--name", required=True, help="What the proxy is called.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1", "::1"),
    show_default=True,
    help="A name or address by which nodes reach it; may be repeated.",
)
@_force
@json_option
def proxy(directory: Path, *, name: str, hosts: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Issue the certificates of a proxy that ends TLS: one for the receivers, one for the nodes."""
    made = PkiDirectory.open(directory).issue_proxy(name, hosts, force=force)
    if as_json:
        print_json(_identity(made))
        return
    folder = made.certificate.parent
    click.echo(f"Proxy {made.name}:")
    click.echo(f"  {made.certificate}  certificate for the receivers\n  {made.key}  private key")
    click.echo(
        f"  {folder / 'server.pem'}  certificate for the nodes\n  {folder / 'server.key'}  private key"
    )
    click.echo(f'\nNext, let the receivers believe it:\n  [receiver.proxy]\n  names = ["{made.name}"]')


def _identity(made: Identity) -> dict[str, str]:
    return {"name": made.name, "certificate": str(made.certificate), "key": str(made.key)}
