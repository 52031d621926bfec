"""Addresses of shared storages, whose passwords are told to nobody."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from mutorch.errors import ConfigError, nearest

PATIENCE = 60.0
"""Seconds without a sign of life after which a participant counts as dead, unless the address says otherwise."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SECRET = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)([^&#]*)", re.IGNORECASE)
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shared storage is, and which study in it; as a text without passwords.

    Attributes:
        shown: the address as it may be told.
        scheme: what comes before `://`, without the driver.
        url: the whole address, with passwords; not for messages.
        study: the name of the study; empty for one that is named after the search.
        patience: see `PATIENCE`.
    """

    shown: str
    scheme: str
    url: str = field(repr=False)
    study: str = ""
    patience: float = PATIENCE
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.shown

    @property
    def rest(self) -> str:
        """What comes after `://`."""
        return self.url.partition("://")[2]

    def scrub(self, text: object) -> str:
        """A text, such as an error of a database, without passwords."""
        plain = str(text).replace(self.url, self.shown)
        for secret in self.secrets:
            plain = plain.replace(secret, "***")
        return plain

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `postgresql://user:password@host/db#study`, or with options `...#study=name&patience=30`.

        Errors:
            ConfigError: unknown options; a password with a `#` in it.

        Example:
            >>> address = Address.parse("postgresql://me:secret@host/db#digits")
            >>> print(address, address.study)
            postgresql://me:***@host/db#digits digits
            >>> address
            Address(shown='postgresql://me:***@host/db#digits', scheme='postgresql', study='digits', patience=60.0)
        """
        plain, _, fragment = text.partition("#")
        found = _URL.fullmatch(plain)
        if found is None:
            raise ConfigError("the address of a storage looks like postgresql://user@host/db, got another text")
        if "@" in fragment:
            raise ConfigError(f"{found[1]}://...: a '#' in a password is written as %23")
        url = f"{_DRIVERS.get(found[1], found[1])}://{found[2]}"
        scheme = url.partition("://")[0].partition("+")[0].lower()
        shown, secrets = _without_secrets(found[1], found[2])
        options = _options(f"{shown}#{fragment}", fragment)
        shown += f"#{fragment}" if fragment else ""
        patience = _patience(shown, options.get("patience"))
        return cls(shown, scheme, url, options.get("study", ""), patience, secrets)


def is_address(log: object) -> bool:
    """Whether a log is a shared storage, not a file.

    Example:
        >>> is_address("sqlite:///trials.db"), is_address("run.jsonl")
        (True, False)
    """
    return isinstance(log, str) and _URL.match(log) is not None


def _without_secrets(scheme: str, rest: str) -> tuple[str, tuple[str, ...]]:
    place, mark, query = rest.partition("?")
    secrets = [secret for _, secret in _SECRET.findall(mark + query)]
    query = _SECRET.sub(r"\1***", mark + query)
    login, at, host = place.rpartition("@")
    user, colon, password = login.partition(":")
    if password:
        secrets.append(password)
        place = f"{user}{colon}***{at}{host}"
    known = {form for secret in secrets if secret for form in (secret, unquote(secret))}
    return f"{scheme}://{place}{query}", tuple(sorted(known, key=len, reverse=True))


def _options(shown: str, fragment: str) -> Mapping[str, str]:
    if "=" not in fragment:
        return {"study": unquote(fragment)} if fragment else {}
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    for name in options:
        if name not in ("study", "patience"):
            raise ConfigError(f"{shown} has the option {name!r}; {nearest(name, ('study', 'patience'))}")
    return options


def _patience(shown: str, text: str | None) -> float:
    if text is None:
        return PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{shown}: patience is a number of seconds above 0, got {text!r}")
    return seconds
