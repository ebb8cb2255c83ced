"""What all metrics of a process are about: the resource, and who tells what of it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource, get_aggregated_resources

from openclaw_exporter import __version__
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.sdk.resources import ResourceDetector

_GROUP: Final = "opentelemetry_resource_detector"


def resource_of(
    service: str, node_id: str, attributes: Mapping[str, str], detectors: Iterable[str] = ()
) -> Resource:
    """Return the resource; `service.namespace` is left unset.

    What comes later wins: `service` and this machine's name; what detectors find; `OTEL_RESOURCE_ATTRIBUTES`
    and `OTEL_SERVICE_NAME`; `attributes`; and `node_id`, which nothing replaces.

    Args:
        service: `service.name`.
        node_id: `service.instance.id`.
        attributes: What the configuration says.
        detectors: Names of the entry points that detect more.

    Raises:
        UserError: There is no detector of a name, or it cannot be loaded.
    """
    resource = Resource.create({"service.name": service, "host.name": socket.gethostname()})
    loaded = [_load(name) for name in detectors]
    if loaded:
        resource = get_aggregated_resources(loaded, resource)
    own = {"service.instance.id": node_id, "service.version": __version__}
    return resource.merge(OTELResourceDetector().detect()).merge(Resource({**attributes, **own}))


def _load(name: str) -> ResourceDetector:
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads the disk, only when used

    found = entry_points(group=_GROUP)
    if name not in found.names:
        known = ", ".join(sorted(found.names))
        message = (
            f"telemetry.resource_detectors: there is no detector {name!r}; installed are {known} "
            "(containerid: pip install 'openclaw-exporter[detectors]')"
        )
        raise UserError(message)
    try:
        detector: ResourceDetector = found[name].load()()
    except Exception as error:
        message = (
            f"telemetry.resource_detectors: the detector {name!r} cannot be loaded "
            f"({type(error).__name__}: {error}); mend its package, or take it out of the list"
        )
        raise UserError(message) from error
    return detector
