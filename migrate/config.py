"""URLs, dicts, files and the environment become settings here; nothing else reads `os.environ`.

Secrets stay inside settings objects: their `repr` and `str` show `***`, and
`mask()` is what every message, report and plan goes through.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_SECRET_KEYS = "password|passwd|pwd|api[-_]?key|apikey|token|secret|secret_key|sslpassword|passphrase"
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/?#:@\s]*):(?P<secret>[^/?#\s]*)@", re.I)
_QUERY = re.compile(rf"(?P<key>[?&;\s](?:{_SECRET_KEYS}))=(?P<secret>[^&;\s]+)", re.I)
_CONNINFO = re.compile(rf"(?P<key>\b(?:{_SECRET_KEYS}))\s*=\s*(?P<secret>'(?:[^'\\]|\\.)*'|[^\s&;]+)", re.I)


def mask(text: str) -> str:
    """Replace every secret in a URL, a conninfo string or a message by `***`."""
    text = _USERINFO.sub(lambda m: f"{m['scheme']}{m['user']}:***@", text)
    text = _QUERY.sub(lambda m: f"{m['key']}=***", text)
    return _CONNINFO.sub(lambda m: f"{m['key']}=***", text)


def env(name: str) -> str | None:
    """Return a variable of the environment, or None where it is unset or empty."""
    return os.environ.get(name) or None


def home() -> Path:
    """Return the folder of our own files (`MEMLIFT_HOME`, else `~/.memlift`); it may not exist yet."""
    return Path(env("MEMLIFT_HOME") or Path.home() / ".memlift").expanduser()


def debug() -> bool:
    """Whether tracebacks were asked for (`MEMLIFT_DEBUG=1`)."""
    return env("MEMLIFT_DEBUG") not in (None, "0")
