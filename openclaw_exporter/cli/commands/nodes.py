"""`nodes`: what the registry of a receiver holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_exporter.cli.options import config_option, json_option
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter.client.nodes import Node

_STATES: Final = ("up", "late", "suspect", "expired", "draining", "offline")
_file = click.Path(path_type=Path)


@click.command(name="nodes")
@config_option
@click.option("--endpoint", metavar="URL", help="The receiver's base URL, https://host:port.")
@click.option("--ca", type=_file, metavar="FILE", help="The authorities that sign its certificate.")
@click.option("--certificate", type=_file, metavar="FILE", help="A reader's certificate (see `pki reader`).")
@click.option("--key", type=_file, metavar="FILE", help="Its private key.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these; repeatable.")
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY:VALUE", help="Only nodes with this tag; repeatable."
)
@click.option("--min-available-slots", type=click.IntRange(0), help="Only nodes with so many free slots.")
@click.option("--watch", "watching", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@json_option
def command(
    *,
    config: Path | None,
    endpoint: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    states: Sequence[str],
    tags: Sequence[str],
    min_available_slots: int | None,
    watching: bool,
    every: float,
    as_json: bool,
) -> None:
    """List the nodes of a receiver's registry.

    Where the receiver is and which certificate to show comes from the options, or from the tables [openclaw]
    and [openclaw.tls] of a configuration. The certificate has to be a reader's. A receiver on this machine
    with --insecure-dev (http://127.0.0.1:port) asks for none.
    """
    # They import h11 and cryptography.
    from openclaw_exporter.cli import node_list  # noqa: PLC0415
    from openclaw_exporter.client import Registry, RegistryError  # noqa: PLC0415

    given = {"endpoint": endpoint, "ca": ca, "certificate": certificate, "key": key}
    place = _place(given, config)
    try:
        with Registry(**place) as registry:

            def read() -> list[Node]:
                return list(registry.nodes(states=states, tags=tags, min_available_slots=min_available_slots))

            if watching:
                node_list.watch(read, every=every, as_json=as_json)
            else:
                node_list.show(read(), as_json=as_json)
    except RegistryError as error:
        raise click.ClickException(str(error)) from error


def _place(given: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """Return endpoint and files: the options' where they are given, else the configuration's."""
    if config is not None:
        from openclaw_exporter.client.settings import ClientSettings  # noqa: PLC0415 - only with --config
        from openclaw_exporter.config import load  # noqa: PLC0415

        settings = load(config, os.environ, services=["agent"]).get(ClientSettings)
        tls = settings.tls
        found = {
            "endpoint": settings.endpoint,
            "ca": tls.ca,
            "certificate": tls.certificate,
            "key": tls.key or tls.certificate,
        }
        given = {name: value or found[name] for name, value in given.items()}
    # Of any other endpoint the registry says whether it needs no files, or will not do.
    needed = tuple(given) if (given["endpoint"] or "https:").startswith("https:") else ("endpoint",)
    missing = [f"--{name}" for name in needed if not given[name]]
    if missing:
        raise UserError(f"give {', '.join(missing)}, or a configuration with --config")
    return given
