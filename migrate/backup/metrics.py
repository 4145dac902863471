"""What the service can be asked: Prometheus text, over HTTP when asked for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from migrate.errors import ConfigError


@dataclass(slots=True)
class Metrics:
    """Counters and times of one service. Ages are kept by the monotonic clock, so a jump of the wall clock
    does not show in them."""

    database: str
    results: dict[str, int] = field(default_factory=lambda: {"success": 0, "unchanged": 0, "failure": 0})
    drills: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0})
    size_bytes: int | None = None
    raw_bytes: int | None = None
    duration_s: float | None = None
    owner: bool = False
    _marks: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str, *, age_s: float = 0.0) -> None:
        """Note that `backup`, `proven` or `drill` happened, `age_s` seconds ago."""
        self._marks[name] = time.monotonic() - age_s

    def age(self, name: str) -> float | None:
        """Return the seconds since, or None where it never happened."""
        at = self._marks.get(name)
        return None if at is None else time.monotonic() - at

    def render(self) -> str:
        """Return the Prometheus text format, version 0.0.4."""
        label = f'database="{self.database}"'
        lines: list[str] = []

        def gauge(name: str, help_text: str, value: float | None) -> None:
            if value is not None:
                full = f"memlift_backup_{name}"
                lines.extend(
                    (f"# HELP {full} {help_text}", f"# TYPE {full} gauge", f"{full}{{{label}}} {value:.6g}")
                )

        def counter(name: str, help_text: str, values: dict[str, int]) -> None:
            full = f"memlift_backup_{name}_total"
            lines.extend((f"# HELP {full} {help_text}", f"# TYPE {full} counter"))
            lines.extend(f'{full}{{{label},result="{key}"}} {value}' for key, value in values.items())

        gauge("age_seconds", "Since the last backup that is good.", self.age("backup"))
        gauge(
            "proven_age_seconds",
            "Age of the newest backup that a restore drill has passed.",
            self.age("proven"),
        )
        gauge("last_drill_age_seconds", "Since the last restore drill that passed.", self.age("drill"))
        gauge("size_bytes", "Stored bytes of the last backup.", self.size_bytes)
        gauge("database_bytes", "Bytes of the database in the last backup.", self.raw_bytes)
        gauge("duration_seconds", "How long the last backup took.", self.duration_s)
        gauge("owner", "1 while this process has the lease.", int(self.owner))
        counter("runs", "Backups by result.", self.results)
        counter("drills", "Restore drills by result.", self.drills)
        return "\n".join(lines) + "\n"


def serve(metrics: Metrics, address: str) -> ThreadingHTTPServer:
    """Answer GET /metrics at host:port in a daemon thread. Raises ConfigError for an address that cannot be used."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ConfigError(f"{address!r} is not host:port", hint="--metrics 127.0.0.1:9187")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = metrics.render().encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent: a scrape every few seconds is no news."""

    try:
        server = ThreadingHTTPServer((host.strip("[]") or "127.0.0.1", int(port)), Handler)
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"cannot listen on {address}: {exc}") from exc
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="memlift-metrics", daemon=True).start()
    return server
