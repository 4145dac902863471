"""The client's generated messages and models without the client.

`import qdrant_client` builds every model it has, over a second of CPU; a server that
is killed and restarted in tests pays that at each start. The server process needs
the generated modules alone, so their parent packages are entered without being run.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path


def install() -> None:
    """To be called before the first import of `qdrant_client`, in the server's process only."""
    found = importlib.util.find_spec("qdrant_client")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("qdrant_client")
    root = Path(found.origin).parent
    for name, folder in (("qdrant_client", root), ("qdrant_client.http", root / "http")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
