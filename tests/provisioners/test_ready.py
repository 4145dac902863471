"""Readiness: what is asked, how often, and what ends the wait."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migrate.errors import ConfigError
from provisioners import ready
from provisioners.errors import NotReadyError, ProvisionError


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(round(seconds, 6))
        self.now += seconds


def answers(*results: object) -> Callable[[], ready.Facts]:
    left = list(results)

    def ask() -> ready.Facts:
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, ready.Facts)
        return result

    return ask


def test_it_asks_every_half_second_until_it_answers() -> None:
    clock = Clock()
    no = NotReadyError("starting up")
    facts = ready.wait(
        answers(no, no, no, ready.Facts("16.14")),
        timeout=15,
        clock=clock,
        sleep=clock.sleep,
    )
    assert facts == ready.Facts("16.14")
    assert clock.sleeps == [0.5, 0.5, 0.5]


def test_it_gives_up_after_fifteen_seconds_by_default_and_says_the_last_reason() -> None:
    clock = Clock()
    with pytest.raises(NotReadyError, match="not ready after 15 s; starting up"):
        ready.wait(
            answers(NotReadyError("starting up")),
            timeout=ready.TIMEOUT_S,
            clock=clock,
            sleep=clock.sleep,
        )
    assert clock.now == 115.0


def test_a_death_ends_the_wait_at_once() -> None:
    clock = Clock()
    with pytest.raises(ProvisionError, match="it ended"):
        ready.wait(
            answers(NotReadyError("x")),
            timeout=15,
            died=lambda: "it ended",
            clock=clock,
            sleep=clock.sleep,
        )
    assert clock.sleeps == []


def test_a_refused_password_ends_the_wait_at_once() -> None:
    clock = Clock()
    with pytest.raises(ready.RefusedError):
        ready.wait(answers(ready.RefusedError("no")), timeout=15, clock=clock, sleep=clock.sleep)
    assert clock.sleeps == []


@contextmanager
def serving(answer: dict[str, tuple[int, object]], key: str | None = None) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answer.get(self.path, (404, {}))
            if key is not None and self.path != "/" and self.headers.get("api-key") != key:
                status, document = 401, {}
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


QDRANT: dict[str, tuple[int, object]] = {
    "/": (200, {"title": "qdrant - vector search engine", "version": "1.19.1"}),
    "/collections": (200, {"result": {"collections": []}}),
}


def test_qdrant_is_asked_for_its_collections_with_the_key() -> None:
    with serving(QDRANT, key="k") as url:
        assert ready.ask_qdrant(url, "k") == ready.Facts("1.19.1")
        with pytest.raises(ready.RefusedError, match="refuses the API key"):
            ready.ask_qdrant(url, "other")
        with pytest.raises(ready.RefusedError, match="refuses the API key"):
            ready.ask_qdrant(url, None)


@pytest.mark.parametrize(
    "answer", [(404, {}), (200, b"<html>"), (200, {"result": []}), (200, [1]), (302, {})]
)
def test_something_else_on_the_port_is_not_taken_for_qdrant(answer: tuple[int, object]) -> None:
    with (
        serving({"/": (200, {"version": "1"}), "/collections": answer}) as url,
        pytest.raises(ready.RefusedError, match="not Qdrant"),
    ):
        ready.ask_qdrant(url, "k")


def test_a_server_that_fails_or_is_away_may_still_come() -> None:
    with serving({"/collections": (503, {})}) as url, pytest.raises(NotReadyError, match="HTTP 503"):
        ready.ask_qdrant(url, None)
    with pytest.raises(NotReadyError, match="does not answer"):
        ready.ask_qdrant(url, None)


def test_tls_to_a_plain_port_is_said() -> None:
    with serving(QDRANT) as url, pytest.raises(ready.RefusedError, match="TLS to Qdrant fails"):
        ready.ask_qdrant(url.replace("http:", "https:"), None)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql+psycopg://u@h/d?schema=a", "postgresql://u@h/d"),
        (
            "postgresql://h/d?sslmode=require&schema=a&connect_timeout=3",
            "postgresql://h/d?sslmode=require&connect_timeout=3",
        ),
        ("host=h dbname=d", "host=h dbname=d"),
    ],
)
def test_urls_are_made_fit_for_libpq(url: str, wanted: str) -> None:
    assert ready.libpq_url(url) == wanted


def test_another_databases_url_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        ready.libpq_url("mysql://u:secret@h/d")
    assert "secret" not in str(caught.value)


def test_the_schema_of_a_url_is_found() -> None:
    assert ready.schema_of("postgresql://h/d?schema=agent_42&sslmode=require") == "agent_42"
    assert ready.schema_of("postgresql://h/d") is None


def test_a_url_that_cannot_be_read_is_not_quoted() -> None:
    with pytest.raises(ready.RefusedError, match="not a URL") as caught:
        ready.ask_postgres("postgresql://me:pa%zzss@localhost/d")
    assert "pa%" not in f"{caught.value} {caught.value.hint} {caught.value.where}"
