"""The order in which a store is looked for, and what each finding leads to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_engine import FakeEngine

import provisioners
from migrate.errors import ConfigError
from provisioners import ready, saved
from provisioners.engine import Engine, EngineDeniedError, EngineDownError, EngineMissingError
from provisioners.errors import NotReadyError, ProvisionError

GIVEN = "postgresql://me:secret@db.example.org/work"


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A Postgres that is not ours; `error` is what it answers with, `tables` what it holds."""
    state: dict[str, object] = {"error": None, "tables": [], "asked": [], "vector": 0}

    def ask(url: str, *, timeout: float = 3.0) -> ready.Facts:
        state["asked"] = [*state["asked"], url]  # type: ignore[misc]
        if isinstance(state["error"], Exception):
            raise state["error"]
        return ready.Facts("17.2")

    def vector(url: str, *, own: bool) -> str:
        state["vector"] = int(str(state["vector"])) + 1
        assert not own
        return "0.8.0"

    monkeypatch.setattr(ready, "ask_postgres", ask)
    monkeypatch.setattr(ready, "ensure_vector", vector)
    monkeypatch.setattr(ready, "other_tables", lambda url: state["tables"])
    return state


def yes(asked: list[str]) -> Callable[[str], bool]:
    def answer(question: str) -> bool:
        asked.append(question)
        return True

    return answer


def no_engine() -> Engine:
    raise AssertionError("no engine is to be looked for")


def failing(error: ProvisionError) -> Callable[[], Engine]:
    def find() -> Engine:
        raise error

    return find


def test_a_given_store_is_checked_and_used(remote: dict[str, object]) -> None:
    endpoint = provisioners.auto_setup("postgres", url=GIVEN, engine=no_engine)
    assert (endpoint.how, endpoint.url, endpoint.version, endpoint.extension) == (
        "given",
        GIVEN,
        "17.2",
        "0.8.0",
    )
    assert endpoint.settings() == {"type": "postgres", "connection_string": GIVEN}
    assert saved.load() == {}


def test_a_given_store_that_fails_is_an_error(remote: dict[str, object]) -> None:
    remote["error"] = NotReadyError("connection refused")
    with pytest.raises(NotReadyError, match="connection refused"):
        provisioners.auto_setup("postgres", url=GIVEN, engine=no_engine)


def test_our_running_store_is_used_without_an_engine(engine: FakeEngine) -> None:
    first = provisioners.auto_setup("postgres", "docker", engine=lambda: engine)
    assert engine.closed
    again = provisioners.auto_setup("postgres", engine=no_engine)
    assert (again.url, again.how, again.extension) == (first.url, "docker", "0.8.5")


def test_our_stopped_store_is_started(engine: FakeEngine) -> None:
    first = provisioners.auto_setup("postgres", "docker", engine=lambda: engine)
    provisioners.stop(engine=lambda: engine)
    assert provisioners.auto_setup("postgres", engine=lambda: engine).url == first.url


def test_the_environment_is_used_and_its_secrets_are_not_saved(
    remote: dict[str, object], monkeypatch: pytest.MonkeyPatch, memlift_home: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", GIVEN)
    endpoint = provisioners.auto_setup("postgres", engine=no_engine)
    assert (endpoint.how, endpoint.url) == ("environment", GIVEN)
    text = (memlift_home / "vector-store.json").read_text()
    assert json.loads(text)["stores"]["postgres-environment"]["variable"] == "DATABASE_URL"
    assert "secret" not in text


@pytest.mark.parametrize("error", [NotReadyError("no route to host"), ready.RefusedError("wrong password")])
def test_an_environment_that_does_not_work_is_an_error_and_nothing_is_made(
    remote: dict[str, object], monkeypatch: pytest.MonkeyPatch, error: ProvisionError, memlift_home: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", GIVEN)
    remote["error"] = error
    with pytest.raises(type(error), match="DATABASE_URL is set, but does not work") as caught:
        provisioners.auto_setup("postgres", engine=no_engine, confirm=lambda _: True)
    assert "unset DATABASE_URL" in str(caught.value.hint)
    assert not memlift_home.exists() or saved.load() == {}


def test_another_databases_url_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root:secret@localhost/shop")
    with pytest.raises(ConfigError, match="not the URL of a Postgres database") as caught:
        provisioners.auto_setup("postgres", engine=no_engine)
    assert "secret" not in str(caught.value)


def test_a_database_of_another_application_is_asked_about_before_anything_is_made(
    remote: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", GIVEN)
    remote["tables"] = ["public.orders"]
    with pytest.raises(ProvisionError, match=r"public\.orders") as caught:
        provisioners.auto_setup("postgres", engine=no_engine)
    assert "?schema=" in str(caught.value.hint)
    with pytest.raises(ProvisionError, match=r"public\.orders"):
        provisioners.auto_setup("postgres", engine=no_engine, confirm=lambda _: False)
    assert remote["vector"] == 0
    asked: list[str] = []
    assert provisioners.auto_setup("postgres", engine=no_engine, confirm=yes(asked)).url == GIVEN
    assert "Make our tables in it too?" in asked[0]


def test_a_schema_in_the_url_says_that_it_is_meant(
    remote: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", GIVEN + "?schema=agent")
    remote["tables"] = ["public.orders"]
    assert provisioners.auto_setup("postgres", engine=no_engine).url == GIVEN + "?schema=agent"


def test_an_explicit_place_is_used_whatever_the_environment_says(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid/x")
    said: list[str] = []
    assert provisioners.auto_setup("postgres", "docker", said.append, engine=lambda: engine).how == "docker"
    assert any("DATABASE_URL is set; it is not used" in text for text in said)


def test_every_step_is_said_in_order(engine: FakeEngine) -> None:
    said: list[str] = []
    provisioners.auto_setup("postgres", None, said.append, engine=lambda: engine)
    numbers = [text[1] for text in said if text.startswith("[")]
    assert numbers == sorted(numbers)
    assert set(numbers) == set("1234567")


@pytest.mark.parametrize("error", [EngineMissingError, EngineDownError, EngineDeniedError])
def test_without_an_engine_the_embedded_way_is_offered_and_never_taken_silently(
    error: type[ProvisionError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = failing(error("no engine", hint="or use --embedded"))
    with pytest.raises(error):
        provisioners.auto_setup("qdrant", engine=find)
    with pytest.raises(error):
        provisioners.auto_setup("qdrant", engine=find, confirm=lambda _: False)
    with pytest.raises(error):
        provisioners.auto_setup("qdrant", "docker", engine=find, confirm=lambda _: True)
    asked: list[str] = []
    endpoint = provisioners.auto_setup(
        "qdrant",
        engine=find,
        confirm=yes(asked),
    )
    assert endpoint.how == "embedded"
    assert "no engine. Use an embedded qdrant" in asked[0]


def test_words_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ProvisionError, match="nothing is known to set up for 'mysql'"):
        provisioners.auto_setup("mysql")
    with pytest.raises(ConfigError, match="cannot set up 'kubernetes'"):
        provisioners.auto_setup("postgres", "kubernetes")
    with pytest.raises(ConfigError, match="a name has letters"):
        provisioners.auto_setup("postgres", "docker", name="../../etc", engine=FakeEngine)
