"""How many messages wait in RabbitMQ's queues, told by the management API or by AMQP 0-9-1.

A queue of RabbitMQ does not vanish when it is drained, so one that is not there is an error of its topic
and never a zero. A pattern is a search: where it finds no queue, none waits, and its depth is 0.
"""

from __future__ import annotations

from importlib.util import find_spec

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_rabbitmq.figures import Figures, TopicError
from openclaw_exporter_rabbitmq.options import Options
from openclaw_exporter_rabbitmq.queues import Queues

__all__ = ["Figures", "Options", "Queues", "TopicError", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Queues]:
    """Return the collector, where topics are configured.

    Raises:
        ModuleNotFoundError: The URL wants AMQP, and its client is not installed.
    """
    if not options.queues:
        return []
    if options.amqp and find_spec("amqp") is None:
        raise ModuleNotFoundError(
            "an amqp url needs the package amqp: install openclaw-exporter-rabbitmq[amqp]"
        )
    return [Queues(options)]
