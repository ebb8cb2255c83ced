"""What goes wrong with the server, each in words that name place and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openclaw_exporter_rabbitmq.options import Options


def refusal(options: Options, what: str = "") -> PermissionError:
    """Return the error of a user who is refused."""
    tag = "" if options.amqp else ", and the user's tag 'monitoring' or 'management'"
    return PermissionError(
        f"{options.place} refuses user {options.username!r}{what}: check username, password_file and "
        f"permissions{tag}"
    )


def silence(options: Options) -> TimeoutError:
    """Return the error of an answer that does not come."""
    seconds = f"timeout = {options.timeout:g} s"
    return TimeoutError(
        f"{options.place} gave no answer within {seconds}: look after the server, or allow it more"
    )


def loss(options: Options, error: object) -> ConnectionError:
    """Return the error of a server that cannot be reached."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ConnectionError(f"{options.place} cannot be read ({text}): check url, and that the server runs")


def check_status(status: int, options: Options) -> None:
    """Take the status of the management API's answer.

    Raises:
        PermissionError: The user is refused.
        ConnectionError: It is none of the management API's good ones.
    """
    if status in (401, 403):
        raise refusal(options)
    if status == 404:  # noqa: PLR2004 - an HTTP status
        raise ConnectionError(
            f"{options.place} has no virtual host {options.vhost!r} or no management API: check vhost and url"
        )
    if status != 200:  # noqa: PLR2004 - an HTTP status
        raise ConnectionError(f"{options.place} answered with HTTP status {status}")
