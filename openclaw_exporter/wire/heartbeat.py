"""The heartbeat: reading it strictly, building it, and its one canonical encoding.

Most bodies are decoded, checked and known to be canonical in one pass (about 2 microseconds). Every other
body, right or wrong, is read again slowly by `fields.check`, which alone decides and names what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from openclaw_exporter.errors import FieldProblem, FieldsError, MalformedBodyError
from openclaw_exporter.wire import fields
from openclaw_exporter.wire.nesting import MAX_DEPTH, is_too_deep
from openclaw_exporter.wire.timestamps import is_normal, ms_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BODY_BYTES: Final = 16_384
"""The limit of a request body; whoever reads the body enforces it (413), `decode` does not."""

_SECONDS: Final = len("2026-02-06T12:34:56")
_WHOLE: Final = _SECONDS + len("Z")

_Count = Annotated[int, Meta(ge=0, le=fields.MAX_INTEGER)]
_Amount = _Count | Annotated[float, Meta(ge=0)]
_Resource = Annotated[str, Meta(max_length=fields.MAX_RESOURCE_NAME)]
_Topic = Annotated[str, Meta(min_length=1, max_length=fields.MAX_TOPIC_NAME)]
_Tag = Annotated[str, Meta(min_length=1, max_length=fields.MAX_TAG_BYTES)]


class Heartbeat(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """One heartbeat that keeps every rule of the contract. Made by `decode` and `build`, which check it.

    Attributes:
        node_id: UUID, lower case.
        hostname: RFC 1123 host name.
        version: The version of the service that the node runs.
        capacity: Resource to amount, 0 or more; `workers` and `available_slots` are always there, integers.
        queue_depth: Topic to number of entries.
        last_heartbeat: RFC 3339, UTC: no fraction on a whole second, three digits otherwise.
        tags: `key:value` by convention.
        uptime_seconds: How long the node's service has run, in seconds.
    """

    node_id: str
    hostname: Annotated[str, Meta(max_length=fields.MAX_HOSTNAME)]
    version: Annotated[str, Meta(min_length=1, max_length=fields.MAX_VERSION)]
    capacity: Annotated[dict[_Resource, _Amount], Meta(max_length=fields.MAX_ENTRIES)]
    queue_depth: Annotated[dict[_Topic, _Count], Meta(max_length=fields.MAX_ENTRIES)]
    last_heartbeat: str
    tags: Annotated[tuple[_Tag, ...], Meta(max_length=fields.MAX_ENTRIES)]
    uptime_seconds: _Count | None = None

    @property
    def sent_ms(self) -> int:
        """Unix milliseconds of `last_heartbeat`."""
        text = self.last_heartbeat
        return ms_of(text[:_SECONDS]) + (int(text[_SECONDS + 1 : -1]) if len(text) > _WHOLE else 0)


_DECODER: Final = msgspec.json.Decoder(Heartbeat)
_ENCODER: Final = msgspec.json.Encoder(order="sorted")

# One match for two fields: no part of it matches a space, so each part matches one whole field.
_identity_is_plain = re.compile(rf"{fields.UUID} {fields.HOST_NAME}").fullmatch
_topics_are_plain = re.compile(r"[A-Za-z0-9_.:-]*").fullmatch
_resource_is_plain = re.compile(fields.RESOURCE).fullmatch
# The largest double has 309 digits before its point.
_has_huge_number = re.compile(rb"[0-9]{309}").search


def decode(body: bytes | bytearray | memoryview, before: Heartbeat | None = None) -> Heartbeat:
    """Read a request body.

    Args:
        body: What came.
        before: What `decode` returned for another body, as a rule the same node's: what is as it was there
            needs no second check.

    Raises:
        MalformedBodyError: It is not JSON, or not strict JSON.
        FieldsError: It is JSON, but fields are missing or break their rule; all of them are named.
    """
    return decode_next(body, before)[0]


def decode_next(
    body: bytes | bytearray | memoryview, before: Heartbeat | None
) -> tuple[Heartbeat, Heartbeat]:
    """Read a request body as `decode` does.

    Returns:
        The heartbeat, and what to pass as `before` with the next body: `before` again where all texts are as
        they were there, so that a sender that goes on as ever leaves nothing to keep or to let go.
    """
    try:
        heartbeat = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        heartbeat = _decode_slowly(body)
        return heartbeat, heartbeat
    # A null stands for an absent uptime only in Python; on the wire it has the wrong type.
    if _is_plain(heartbeat) and (heartbeat.uptime_seconds is not None or b"null" not in bytes(body)):
        if before is not None and _has_same_texts(heartbeat, before):
            return heartbeat, before
        if _texts_are_plain(heartbeat):
            return heartbeat, heartbeat
    heartbeat = _decode_slowly(body)
    return heartbeat, heartbeat


def build(
    *,
    node_id: str,
    hostname: str,
    version: str,
    capacity: Mapping[str, int | float],
    queue_depth: Mapping[str, int],
    last_heartbeat: str,
    tags: Sequence[str],
    uptime_seconds: int | None = None,
) -> Heartbeat:
    """Make a heartbeat from Python values, with the checks of `decode`.

    Raises:
        FieldsError: Fields break their rule; all of them are named.
    """
    members: dict[str, object] = {
        "node_id": node_id,
        "hostname": hostname,
        "version": version,
        "capacity": dict(capacity),
        "queue_depth": dict(queue_depth),
        "last_heartbeat": last_heartbeat,
        # A string is a sequence of strings too, and never meant as one.
        "tags": tags if isinstance(tags, str) else tuple(tags),
    }
    if uptime_seconds is not None:
        members["uptime_seconds"] = uptime_seconds
    return Heartbeat(**fields.check(members))


def encode(heartbeat: Heartbeat) -> bytes:
    """Return the canonical encoding: keys sorted, no spaces, UTF-8. Equal heartbeats have equal encodings."""
    return _ENCODER.encode(heartbeat)


def digest(heartbeat: Heartbeat | bytes) -> bytes:
    """Return the SHA-256, 32 bytes, of a heartbeat's canonical encoding (or of that encoding itself)."""
    canonical = heartbeat if isinstance(heartbeat, bytes) else _ENCODER.encode(heartbeat)
    return hashlib.sha256(canonical).digest()


def _is_plain(heartbeat: Heartbeat) -> bool:
    """Tell whether time and amounts of a decoded heartbeat keep every rule and are normal already."""
    if not is_normal(heartbeat.last_heartbeat):
        return False
    capacity = heartbeat.capacity
    if type(capacity.get("workers")) is not int or type(capacity.get("available_slots")) is not int:
        return False
    return len(capacity) == len(fields.REQUIRED_RESOURCES) or _resources_are_plain(capacity)


def _has_same_texts(heartbeat: Heartbeat, before: Heartbeat) -> bool:
    return (
        heartbeat.node_id == before.node_id
        and heartbeat.hostname == before.hostname
        and heartbeat.version == before.version
        and heartbeat.tags == before.tags
        and heartbeat.queue_depth.keys() == before.queue_depth.keys()
    )


def _texts_are_plain(heartbeat: Heartbeat) -> bool:
    if not _identity_is_plain(f"{heartbeat.node_id} {heartbeat.hostname}"):
        return False
    text = heartbeat.version + "".join(heartbeat.tags)
    return text.isascii() and text.isprintable() and bool(_topics_are_plain("".join(heartbeat.queue_depth)))


def _resources_are_plain(capacity: dict[str, int | float]) -> bool:
    return all(
        _resource_is_plain(resource) and (isinstance(amount, int) or not amount.is_integer())
        for resource, amount in capacity.items()
    )


def _decode_slowly(body: bytes | bytearray | memoryview) -> Heartbeat:
    # Whatever nests that deeply has been refused before: no field of a heartbeat does.
    if is_too_deep(body if isinstance(body, bytes | bytearray) else bytes(body)):
        raise MalformedBodyError("malformed-nesting", f"the body nests deeper than {MAX_DEPTH}")
    members = _decode_json(body)
    if not isinstance(members, dict):
        raise FieldsError((FieldProblem("$", "the body must be a JSON object"),))
    return Heartbeat(**fields.check(members))


def _decode_json(body: bytes | bytearray | memoryview) -> Any:
    """Read strict JSON of any shape; every number in it, dropped or not, is in the range of doubles."""
    try:
        members = msgspec.json.decode(body)
        if _has_huge_number(body):
            # Python's integers have no range, so each one is measured, shadowed duplicates included.
            json.loads(bytes(body), parse_int=_measure)
    except (msgspec.ValidationError, OverflowError):
        # Without a type to validate, the range of numbers is the one thing that can be invalid.
        raise MalformedBodyError("malformed-number", "a number is beyond the range of doubles") from None
    except UnicodeDecodeError:
        raise MalformedBodyError("malformed-utf8", "the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        if "UTF-8" in str(error):  # since msgspec 0.23 no UnicodeDecodeError
            raise MalformedBodyError("malformed-utf8", "the body is not UTF-8") from None
        raise MalformedBodyError("malformed-json", "the body is not JSON") from None
    return members


def _measure(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise OverflowError
    return value
