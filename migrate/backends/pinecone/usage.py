"""What a store has asked of Pinecone: requests, bytes and units, counted where they leave."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Counted:
    """Sums since the store was opened.

    requests: of the data plane that were answered with success; retries: tries that were not.
    write_units: reckoned from the sizes of records; read_units: as the answers tell them.
    """

    requests: int = 0
    retries: int = 0
    upserts: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    write_units: int = 0
    read_units: int = 0


@dataclass(slots=True)
class Usage:
    """A `Counted` that several threads add to."""

    counted: Counted = field(default_factory=Counted)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **amounts: int) -> None:
        """Add to the sums."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.counted, name, getattr(self.counted, name) + amount)

    def to_dict(self) -> dict[str, int]:
        """Return the sums."""
        with self._lock:
            return asdict(self.counted)
