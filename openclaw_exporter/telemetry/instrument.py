"""What the catalogue says of one instrument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["counter", "updowncounter", "gauge", "histogram"]
Service: TypeAlias = Literal["agent", "receiver"]
AttributeValue: TypeAlias = str | bool | int | float


class Instrument(msgspec.Struct, frozen=True):
    """One instrument.

    Attributes:
        name: Dotted, in lower case.
        kind: An updowncounter adds up over nodes, a gauge does not, a counter only grows.
        unit: UCUM (`s`, `By`, `Cel`, `W`, `J`, `1`), one `{annotation}`, or empty for a state of 0 or 1.
        description: One sentence, without a full stop.
        attributes: The keys that its series may carry.
        bounds: The upper bounds of a histogram's buckets; none of the others has any.
        service: Whose it is.
        zeros: The series of a counter that exist, at 0, from the start: the first event is then an increase.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None
    service: Service = "agent"
    zeros: tuple[Mapping[str, AttributeValue], ...] = ({},)
