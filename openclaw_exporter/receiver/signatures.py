"""Whether payload signatures are looked at, and with whose key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import TokenError
from openclaw_exporter.wire.signatures import is_signed, verify
from openclaw_exporter.wire.tokens.compact import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.connection import Verdict
    from openclaw_exporter.receiver.settings import TokenSettings
    from openclaw_exporter.wire.tokens import Algorithm, VerificationKey

_METHOD: Final = "POST"
_PATH: Final = "/openclaw/availability"


class Signatures:
    """Checks the payload signatures of the publish call.

    Args:
        settings: The table `[receiver.tokens]`, in which `signatures` is not off.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._required = settings.signatures == "require"
        self._leeway = settings.leeway

    def check(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        token: bytes,
        verdict: Verdict | None,
        now: float,
    ) -> None:
        """Check a request's signature where the policy asks for it.

        Args:
            headers: All header fields, names in lower case.
            body: The body.
            token: The request's token, which has been verified.
            verdict: What is known of that token.
            now: Unix seconds.

        Raises:
            TokenError: `signature-missing` or `signature-invalid`.
        """
        if not self._required and not is_signed(headers):
            return
        key = None if verdict is None else verdict.verifier.key(verdict.issuer, verdict.key_id)
        if key is None:
            raise TokenError("signature-invalid", "the token's key is not known any more")
        verify(
            headers,
            method=_METHOD,
            path=_PATH,
            body=body,
            key=key,
            algorithm=_algorithm(key, token),
            now=now,
            leeway=self._leeway,
        )


def _algorithm(key: VerificationKey, token: bytes) -> Algorithm:
    """Return the token's `alg`; only an RSA key can have two."""
    if len(key.algorithms) == 1:
        return key.algorithms[0]
    algorithm: Algorithm = parse(token).header["alg"]
    return algorithm
