"""A Chimera's queues in Redis: what waits, for how long, and how many workers are there and busy.

A list, a sorted set or a stream; a Redis, one behind Sentinels, or a cluster; plain keys, patterns, or the
queues of Celery, RQ, arq and BullMQ. A drained queue's key vanishes: that is depth 0. What cannot be read is
left out, never zero. Once the keys are known, one collection is one round trip, however many there are.

An ACL user needs `+type`, `+select` for another database than 0, and of the following what its queues are:
`+llen`, `+zcard`, `+xlen`, `+xinfo|groups`; for patterns `+scan`; for ages `+lindex`, `+zrange`, `+sort_ro`,
`+xrange`, `+xpending`; for busy workers `+xinfo|consumers`, `+hlen`; for `blocked_hint` `+info`; behind
Sentinels `+role`; in a cluster `+cluster|slots`; where a stream's entries are deleted `+xrevrange`. Without
the rights for ages the depths are still told. With `+client|setname`, CLIENT LIST shows who asks.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_chimera.options import Options
from openclaw_exporter_chimera.queues import Queues
from openclaw_exporter_chimera.reading import OtherTypeError, TopicError
from openclaw_exporter_chimera.workers import Workers

__all__ = ["Options", "OtherTypeError", "Queues", "TopicError", "Workers", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Queues | Workers]:
    """Return a collector for what is configured. Workers are known whether Redis answers or not."""
    collectors: list[Queues | Workers] = []
    if options.topics:
        collectors.append(Queues(options))
    if options.workers is not None or options.worker_processes is not None:
        collectors.append(Workers(options))
    return collectors
