"""Every state that a container or a port can be found in, on an engine in memory."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import NAME, PG16, FakeEngine, said, store

from provisioners import docker as docker_store
from provisioners import ready, saved
from provisioners.engine import Container
from provisioners.errors import NotReadyError, ProvisionError


def test_a_first_start_pulls_makes_and_saves(engine: FakeEngine, memlift_home: Path) -> None:
    endpoint = store(engine).up()
    assert engine.calls == [f"pull {PG16}", f"create {NAME}", f"start {NAME}"]
    entry = json.loads((memlift_home / "vector-store.json").read_text())["stores"][NAME]
    assert endpoint.url == f"postgresql://memlift:{entry['password']}@127.0.0.1:5432/memory"
    assert (endpoint.version, endpoint.extension) == ("16.14", "0.8.5")
    assert entry["digest"] == "sha256:digest16"
    assert stat.S_IMODE((memlift_home / "vector-store.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(memlift_home.stat().st_mode) == 0o700
    assert entry["password"] not in repr(endpoint)
    assert entry["password"] not in str(said)
    assert "pulling: 1.0 of 2.0 MiB" in said


def test_running_twice_changes_nothing(engine: FakeEngine) -> None:
    first = store(engine).up()
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == []


def test_a_stopped_container_is_started(engine: FakeEngine) -> None:
    first = store(engine).up()
    store(engine).stop()
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == [f"start {NAME}"]


def test_a_paused_container_goes_on(engine: FakeEngine) -> None:
    first = store(engine).up()
    engine.put(NAME, state="paused")
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == [f"unpause {NAME}"]


@pytest.mark.parametrize("state", ["created", "dead"])
def test_a_half_made_or_dead_container_is_made_anew_on_its_data(engine: FakeEngine, state: str) -> None:
    first = store(engine).up()
    engine.put(NAME, state=state)
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == [f"remove {NAME}", f"create {NAME}", f"start {NAME}"]


def test_a_container_that_is_being_removed_is_waited_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(engine).up()
    engine.put(NAME, state="removing")
    looks = iter([1, 2])
    real = engine.container

    def vanishing(name: str) -> Container | None:
        if next(looks, None) is None:
            engine.boxes = {n: c for n, c in engine.boxes.items() if c.state != "removing"}
        return real(name)

    monkeypatch.setattr(engine, "container", vanishing)
    assert store(engine).up() == first


def test_an_unhealthy_container_that_answers_is_used(engine: FakeEngine) -> None:
    first = store(engine).up()
    engine.put(NAME, health="unhealthy")
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == []
    assert any("it answers" in text for text in said)


def test_an_unhealthy_container_that_is_silent_is_restarted_once(engine: FakeEngine) -> None:
    first = store(engine).up()
    engine.put(NAME, health="unhealthy")
    engine.sleepy = 2
    engine.calls.clear()
    assert store(engine).up() == first
    assert engine.calls == [f"stop {NAME}", f"start {NAME}"]


def test_a_container_that_keeps_ending_is_an_error_with_its_last_words(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine).up()
    engine.put(NAME, state="restarting", exit_code=1)
    with pytest.raises(NotReadyError, match="last words of the server"):
        store(engine, ready_timeout=0.02).up()
    engine.put(NAME, state="running", restarts=0)
    engine.sleepy = 10**9

    def crashing(name: str) -> Container | None:
        engine.boxes[name] = replace(engine.boxes[name], restarts=engine.boxes[name].restarts + 1)
        return engine.boxes[name]

    monkeypatch.setattr(engine, "container", crashing)
    with pytest.raises(ProvisionError, match=r"(?s)ended .*last words of the server"):
        store(engine, ready_timeout=60).up()
    assert "memlift-postgres-16" in engine.disks


def test_a_server_that_the_engine_restarts_once_is_waited_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(engine).up()
    engine.sleepy = 3
    real = engine.ask_postgres

    def crashed_once(url: str, *, timeout: float = 3.0) -> ready.Facts:
        engine.put(NAME, restarts=1)
        return real(url, timeout=timeout)

    monkeypatch.setattr(ready, "ask_postgres", crashed_once)
    assert store(engine).up() == first


def test_a_server_that_met_its_own_port_when_it_was_restarted_is_started_again(engine: FakeEngine) -> None:
    first = store(engine).up()
    error = "failed to bind host port for 127.0.0.1:5432: address already in use"
    looks = 0
    real = engine.container

    def killed_at_the_second_look(name: str) -> Container | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            engine.put(name, state="exited", exit_code=137, error=error)
        return real(name)

    engine.calls.clear()
    engine.sleepy = 1
    engine.container = killed_at_the_second_look  # type: ignore[method-assign]
    assert store(engine).up() == first
    assert engine.calls == [f"start {NAME}"]


def test_a_first_start_that_dies_leaves_nothing_behind(engine: FakeEngine) -> None:
    engine.dies = True
    with pytest.raises(ProvisionError, match=r"ended \(exit code 1\)"):
        store(engine).up()
    assert (engine.boxes, engine.disks, saved.load()) == ({}, {}, {})
    engine.dies = False
    assert store(engine).up().version == "16.14"


def test_a_slow_server_is_asked_again_and_in_time_given_up_but_not_thrown_away(engine: FakeEngine) -> None:
    engine.sleepy = 3
    assert store(engine).up().version == "16.14"
    store(engine).down(volumes=True)
    engine.sleepy = 10**9
    with pytest.raises(NotReadyError, match=r"not ready after 0\.02 s"):
        store(engine, ready_timeout=0.02).up()
    assert engine.boxes[NAME].state == "running"
    engine.sleepy = 0
    assert store(engine).up().version == "16.14"


def test_a_busy_port_is_replaced_and_the_new_one_remembered(engine: FakeEngine) -> None:
    engine.busy = {5432}
    first = store(engine).up()
    assert ":5432/" not in first.url
    engine.busy = set()
    store(engine).down()
    assert store(engine).up().url == first.url


def test_a_port_taken_between_look_and_start_leaves_one_container(engine: FakeEngine) -> None:
    def somebody_is_faster() -> None:
        engine.busy = {5432}

    engine.on_create = somebody_is_faster
    endpoint = store(engine).up()
    assert ":5432/" not in endpoint.url
    assert [c.state for c in engine.boxes.values()] == ["running"]
    assert engine.calls.count(f"remove {NAME}") == 1
    # The first volume went with its password: none is left behind that opens nothing.
    assert "old" not in (saved.get(NAME) or {})
    store(engine).down(volumes=True)
    assert saved.load() == {}


def test_a_port_that_is_let_go_of_a_moment_later_is_kept(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(engine).up()
    store(engine).stop()
    engine.busy = {5432}
    monkeypatch.setattr(docker_store.time, "sleep", lambda seconds: engine.busy.clear())
    assert store(engine).up().url == first.url


def test_a_port_taken_while_stopped_is_replaced_on_the_same_data(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_store, "PORT_PATIENCE_S", 0.01)
    first = store(engine).up()
    store(engine).stop()
    engine.busy = {5432}
    second = store(engine).up()
    assert second.url != first.url
    assert second.url.split("@")[0] == first.url.split("@")[0]
    assert list(engine.disks) == ["memlift-postgres-16"]
    engine.busy = set()
    store(engine).stop()
    assert store(engine).up().url == second.url


def test_an_interrupt_while_pulling_leaves_nothing_behind(engine: FakeEngine) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    engine.on_pull = interrupt
    with pytest.raises(KeyboardInterrupt):
        store(engine).up()
    assert (engine.boxes, engine.disks) == ({}, {})


def test_two_at_once_end_with_one_container(engine: FakeEngine) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(store(engine).up().url)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert engine.calls.count(f"create {NAME}") == 1


def test_down_keeps_the_data_and_up_finds_it(engine: FakeEngine) -> None:
    first = store(engine).up()
    assert store(engine).down() == [NAME]
    assert list(engine.disks) == ["memlift-postgres-16"]
    assert store(engine).up() == first


def test_a_paused_container_is_stopped_cleanly(engine: FakeEngine) -> None:
    store(engine).up()
    engine.put(NAME, state="paused")
    engine.calls.clear()
    assert store(engine).stop() is True
    assert engine.calls == [f"unpause {NAME}", f"stop {NAME}"]


def test_a_remote_engine_gives_the_address_of_its_machine(engine: FakeEngine) -> None:
    remote = replace(engine, host="build7", bind="10.1.2.3", local=False)
    engine.boxes, engine.disks, engine.specs = remote.boxes, remote.disks, remote.specs
    engine.passwords = remote.passwords
    endpoint = store(remote).up()
    assert "@build7:5432/" in endpoint.url
    assert remote.specs[NAME].ports == {5432: ("10.1.2.3", 5432)}


def test_a_tunnel_to_a_remote_engine_is_addressed_here(engine: FakeEngine) -> None:
    engine.host, engine.bind, engine.local = "build7", "127.0.0.1", False
    assert "@127.0.0.1:15432/" in store(engine, port=15432).up().url
