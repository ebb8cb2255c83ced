"""Showing values and foreign error texts to a person without showing a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_SHOWN: Final = 80
"""Characters of a value that are shown at most."""

MAX_LINE: Final = 300
"""Characters of a foreign error text that are kept at most."""

_SECRET_KEY: Final = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|credentials?|authorization|bearer|cookie|api_?key|"
    r"private_?key|dsn)s?(?:_|$)",
    re.IGNORECASE,
)
_PLACE_OF_SECRET: Final = re.compile(r"_(?:file|path|dir|directory|env|lifetime|ttl)$", re.IGNORECASE)
_URL_CREDENTIALS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
_SECRET_TEXT: Final = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"  # a JSON Web Token begins so
    r"|-----BEGIN.*"  # PEM, to the end of the text
    r"|\bBearer\s+\S+"
    r"|(?<=password=)[^\s&]+",
    re.DOTALL | re.IGNORECASE,
)
_HIDDEN: Final = "***"


def is_secret_key(name: str) -> bool:
    """Whether the value of a configuration key with this name is never to be shown.

    Names of places (`password_file`, `token_path`) are no secrets.
    """
    return bool(_SECRET_KEY.search(name)) and not _PLACE_OF_SECRET.search(name)


def redact(text: str) -> str:
    """Return the text with credentials in URLs, tokens and PEM blocks replaced by `***`."""
    return _SECRET_TEXT.sub(_HIDDEN, _URL_CREDENTIALS.sub(rf"\g<scheme>{_HIDDEN}@", text))


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Return a foreign text redacted, in one line of printable characters, at most `limit` long."""
    text = redact(text[: 16 * limit])
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def describe_error(error: BaseException) -> str:
    """Return `TypeName: text` of an exception in one line, redacted; never raises."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a foreign exception's __str__ may raise anything, SystemExit too
        text = ""
    return one_line(f"{name}: {text}" if text else name)


def shown(name: str, value: object) -> str:
    """Return how a wrong value of the key `name` is shown: bounded, with secrets hidden.

    Tables and lists are named by their size only, because any of their members may be a secret.
    """
    if is_secret_key(name):
        return f"{kind_of(value)} (hidden)"
    if isinstance(value, Mapping):
        return f"a table of {len(value)}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value = redact(value)
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def kind_of(value: object) -> str:
    """Return the kind of a TOML value in words, such as `a string`."""
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a value of type {type(value).__name__}"


_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a number"),
    (Mapping, "a table"),
    ((list, tuple), "a list"),
)
