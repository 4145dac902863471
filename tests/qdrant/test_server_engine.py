"""What is asked of a server, in moments that a test server cannot be brought into: no server is needed here."""

from __future__ import annotations

from typing import Any

import pytest

from migrate.backends.qdrant import server as server_module
from migrate.backends.qdrant.engine import Json
from migrate.backends.qdrant.errors import of_status
from migrate.backends.qdrant.names import field_path
from migrate.backends.qdrant.server import ServerEngine
from migrate.config import QdrantSettings
from migrate.errors import BackendError, ConfigError, TransientError


class Told:
    """Stands for the connection: answers a collection's state from a list, and keeps what was asked."""

    grpc = None

    def __init__(self, *states: Json) -> None:
        self.states, self.asked = list(states), list[tuple[str, str, Any]]()

    def describe(self) -> str:
        return "told"

    def rest(self, method: str, path: str, op: str, body: Any = None, *, none_for: int = 0) -> Any:
        self.asked.append((method, path, body))
        if method != "GET":
            answer = self.states[0].get("answer") if self.states else None
            if isinstance(answer, Exception):
                self.states.pop(0)
                raise answer
            return {"status": "completed"}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {
            "config": {"params": {"vectors": {"size": 4, "distance": "Dot"}}},
            "points_count": 10,
            "indexed_vectors_count": 4,
            "optimizer_status": "ok",
            "payload_schema": {},
            **state,
        }


def engine_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> ServerEngine:
    monkeypatch.setattr(server_module, "POLL_S", 0.0)
    monkeypatch.setattr(server_module, "_NUDGE_S", 0.0)
    made = ServerEngine(QdrantSettings(url="http://nowhere"))
    monkeypatch.setattr(made, "_connection", told)
    return made


def test_a_grey_collection_is_told_to_go_on_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    green = [{"status": "green"}] * 3
    told = Told({"status": "grey"}, {"status": "yellow"}, *green)
    seen: list[tuple[int, int]] = []
    engine_told(told, monkeypatch).index("c", {"hnsw_config": {"m": 16}}, lambda *at: seen.append(at))
    assert [body for method, _, body in told.asked if method == "PATCH"] == [
        {"hnsw_config": {"m": 16}},
        {"optimizers_config": {}},
    ]
    assert seen == [(4, 10)] * 5


def test_a_red_collection_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({"status": "red", "optimizer_status": {"error": "no space"}})
    with pytest.raises(BackendError, match="no space"):
        engine_told(told, monkeypatch).index("c", {}, lambda *at: None)


def test_a_payload_index_that_takes_longer_than_a_request_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = {"answer": TransientError("timed out"), "status": "yellow"}
    begun = {"status": "yellow", "payload_schema": {"n": {"data_type": "integer"}}}
    told = Told(slow, {**begun}, {**begun, "answer": TransientError("timed out")}, {**begun}, begun)
    engine_told(told, monkeypatch).index_payload("c", "n", {"type": "integer"})
    assert [method for method, _, _ in told.asked] == ["PUT", "GET", "PUT", "GET", "PUT"]


def test_a_payload_index_that_was_never_begun_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told({"answer": TransientError("busy"), "status": "green"}, {"status": "green"})
    with pytest.raises(TransientError, match="busy"):
        engine_told(told, monkeypatch).index_payload("c", "n", {"type": "integer"})


def test_requests_and_pages_keep_to_strict_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = {"enabled": True, "upsert_max_batchsize": 7, "max_query_limit": 5, "max_timeout": 3}
    params = {"vectors": {"size": 4, "distance": "Dot"}}
    state = {"status": "green", "config": {"params": params, "strict_mode_config": strict}}
    assert tuple(engine_told(Told(state), monkeypatch)._caps("c")) == (7, 5, 3, 2000, 2000)
    strict["enabled"] = False
    assert tuple(engine_told(Told(state), monkeypatch)._caps("d")) == (2000, None, 60, 2000, 2000)


def test_what_strict_mode_forbids_is_not_told_as_a_wrong_key() -> None:
    strict = 'Forbidden: Limit exceeded 9 > 5 for "limit". Help: Reduce the "limit" parameter to 5.'
    assert not isinstance(of_status("read", 403, strict, None), ConfigError)
    assert isinstance(
        of_status("read", 403, "Forbidden: Global manage access is required", None), ConfigError
    )


def test_a_locked_storage_is_not_told_as_a_wrong_key_and_not_tried_again() -> None:
    text = "Storage locked: Write operations are forbidden"
    for status in (403, 500):  # REST, and FAILED_PRECONDITION of gRPC
        found = of_status("upsert points", status, text, None)
        assert type(found) is BackendError
        assert "lift its lock" in str(found.hint)


def test_names_that_no_path_can_say_have_no_payload_index() -> None:
    names = ("plain", "two words", "a.b", 'od"d', "back\\slash", "")
    assert [field_path(n) for n in names] == ["plain", '"two words"', '"a.b"', None, None, None]


def test_a_payload_index_is_named_as_the_server_tells_it() -> None:
    assert [field_path(n) for n in ("größe", "日本", "a-b", "größe in m")] == [
        "größe",
        "日本",
        "a-b",
        '"größe in m"',
    ]


def test_a_request_has_no_more_points_than_strict_mode_allows_in_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for strict, most in (
        ({"enabled": True, "write_rate_limit": 300}, 300),
        ({"enabled": True, "write_rate_limit": 300, "upsert_max_batchsize": 100}, 100),
        ({"enabled": False, "write_rate_limit": 300}, server_module.REQUEST_POINTS),
    ):
        params = {"vectors": {"size": 4, "distance": "Dot"}}
        told = Told({"status": "green", "config": {"params": params, "strict_mode_config": strict}})
        assert engine_told(told, monkeypatch)._caps("c").write == most


def test_ids_that_are_deleted_or_looked_for_are_as_many_as_strict_mode_takes_in_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = {"enabled": True, "write_rate_limit": 300, "read_rate_limit": 400}
    params = {"vectors": {"size": 4, "distance": "Dot"}}

    class Empty(Told):
        def rest(self, method: str, path: str, op: str, body: Any = None, *, none_for: int = 0) -> Any:
            answer = super().rest(method, path, op, body, none_for=none_for)
            return [] if path.endswith("/points") else answer

    told = Empty({"status": "green", "config": {"params": params, "strict_mode_config": strict}})
    engine = engine_told(told, monkeypatch)
    engine.delete("c", range(700))
    engine.present("c", range(700))
    engine.retrieve("c", range(700))
    assert [len(body["points"]) for _, path, body in told.asked if "/delete" in path] == [300, 300, 100]
    assert [len(body["ids"]) for _, path, body in told.asked if path.endswith("/points")] == [400, 300] * 2


def test_a_host_that_the_client_cannot_read_is_told_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"no address of a Qdrant server: qdrant\+http://a b"):
        ServerEngine(QdrantSettings(url="http://a b")).names()
