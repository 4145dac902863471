"""A move to another tier: the new address is written last, and after any failure all is as it was."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrate import addresses, api, promotion
from migrate.advising import Advice
from migrate.api import Request
from migrate.config import MemorySettings, SqliteSettings
from migrate.errors import BackendError, ConfigError, InterruptedRunError, MigrateError, VerifyError
from migrate.promotion import Move, name_of, promote, where_is
from migrate.report import Observer, Report
from migrate.search.parity import Parity, TableParity, Thresholds, Wanted, stores
from migrate.verify import Outcome
from provisioners import saved
from provisioners.base import Endpoint
from tests.small_stores import asked, in_memory, pairs, sqlite_file

pytestmark = pytest.mark.usefixtures("shelves")

ROWS = [(1, "one"), (2, "two")]
SQL = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'one'), (2, 'two')"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("MEMLIFT_HOME", str(folder))
    return folder


class Checks:
    """Stands for the check of search, which stores of tests have not."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.failures: tuple[str, ...] = ()
        self.error: Exception | None = None

    def __call__(self, source: Any, target: Any, wanted: Wanted, observer: Observer) -> Parity:
        self.asked.append((str(addresses.parse(source)), str(addresses.parse(target))))
        if self.error is not None:
            raise self.error
        return Parity(10, (TableParity("t"),), {}, Thresholds(), self.failures)


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    made = Checks()
    monkeypatch.setattr(stores, "check_stores", made)
    monkeypatch.setattr(stores, "refuse_unsearchable", lambda *_: None)
    return made


@pytest.fixture
def source() -> str:
    """A store that is in no tier; files in our home are its target."""
    in_memory("agent", (pairs(), ROWS))
    return "memory:agent"


def document(home: Path) -> dict[str, Any]:
    path = home / "vector-store.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_a_memory_moves_and_its_address_is_saved_in_a_private_file(
    source: str, home: Path, checks: Checks
) -> None:
    report = promote(source, Move("sqlite"))

    address = where_is(source)
    assert address is not None
    assert asked(Path(address["path"]), "SELECT * FROM t") == ROWS
    assert report.verified
    assert report.promotion is not None
    assert (report.promotion["tier"], report.promotion["moved"]) == ("sqlite", True)
    assert report.search == Parity(10, (TableParity("t"),), {}, Thresholds()).to_dict()
    path = Path(report.promotion["saved"])
    assert path == home / "vector-store.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (entry,) = document(home)["memories"].values()
    assert (entry["tier"], entry["address"], entry["previous"]) == ("sqlite", address, source)
    assert checks.asked == [(source, address["path"])]


def test_other_addresses_stay_and_stores_of_provisioners_as_well(source: str, home: Path) -> None:
    saved.put("memlift-qdrant", {"kind": "qdrant", "how": "docker", "url": "http://127.0.0.1:1"})
    saved.remember("other_123456", {"tier": "qdrant", "address": {"type": "qdrant", "path": "x"}})
    promote(source, Move("sqlite"))
    saved.put("memlift-postgres", {"kind": "postgres", "how": "docker", "url": "postgresql://x"})
    saved.forget("memlift-qdrant")
    told = document(home)
    assert told["stores"].keys() == {"memlift-postgres"}
    assert told["memories"].keys() == {"other_123456", name_of(MemorySettings("agent"))}
    assert told["format"] == 1


def fail_in_advise(monkeypatch: pytest.MonkeyPatch) -> None:
    def advise(*_: Any, **__: Any) -> Advice:
        raise BackendError("the source went away")

    monkeypatch.setattr(promotion, "advise", advise)


def fail_in_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def ready(*_: Any) -> dict[str, Any]:
        raise ConfigError("no engine is installed")

    monkeypatch.setattr(promotion, "_ready", ready)


def fail_in_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from migrate.backends.sqlite.target import SqliteTarget

    def commit(*_: Any) -> None:
        raise BackendError("database or disk is full")

    monkeypatch.setattr(SqliteTarget, "commit", commit)


def fail_in_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    from migrate import engine

    def compare(*_: Any, **__: Any) -> Outcome:
        return Outcome(rows_source=2, checked=2, different=1)

    monkeypatch.setattr(engine, "compare", compare)


def fail_in_search(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Checks()
    checks.failures = ("t: recall is 0.5, below 0.95",)
    monkeypatch.setattr(stores, "check_stores", checks)


def crash_in_search(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Checks()
    checks.error = BackendError("the target went away")
    monkeypatch.setattr(stores, "check_stores", checks)


def interrupt_in_search(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Checks()
    checks.error = InterruptedRunError("interrupted")
    monkeypatch.setattr(stores, "check_stores", checks)


def fail_in_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioners import files

    def write_private(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_private", write_private)


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], type[Exception]]] = {
    "advise": (fail_in_advise, BackendError),
    "set-up": (fail_in_set_up, ConfigError),
    "copy": (fail_in_copy, BackendError),
    "verify": (fail_in_verify, VerifyError),
    "search": (fail_in_search, VerifyError),
    "search that breaks": (crash_in_search, BackendError),
    "interrupted": (interrupt_in_search, InterruptedRunError),
    "saving": (fail_in_saving, OSError),
}


@pytest.mark.parametrize("phase", FAILURES)
def test_a_failure_in_any_phase_leaves_the_address_and_the_store_as_they_were(
    phase: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain = sqlite_file(tmp_path / "brain.sqlite", SQL)
    name = name_of(SqliteSettings(brain))
    saved.remember(name, {"tier": "sqlite", "address": {"type": "sqlite", "path": "/old"}})
    before = (home / "vector-store.json").read_bytes(), brain.read_bytes()
    monkeypatch.setattr(promotion, "_there", lambda before, chosen: False)  # a move from file to file
    fail, kind = FAILURES[phase]

    with monkeypatch.context() as spoiled:
        fail(spoiled)
        with pytest.raises(kind):
            promote(brain, Move("auto" if phase == "advise" else "sqlite"))
    assert ((home / "vector-store.json").read_bytes(), brain.read_bytes()) == before
    assert where_is(brain) == {"type": "sqlite", "path": "/old"}

    report = promote(brain, Move("sqlite"), Request(update=True))  # and then it goes on
    assert report.verified
    assert where_is(brain) == {"type": "sqlite", "path": str(home / f"{name}.sqlite")}


def test_search_that_does_not_find_the_same_exits_with_3_and_the_whole_report(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in_search(monkeypatch)
    with pytest.raises(VerifyError) as raised:
        promote(source, Move("sqlite"))
    assert raised.value.exit_code == 3
    assert raised.value.report is not None
    assert raised.value.report.verified  # the rows are all there
    assert raised.value.report.search is not None
    assert not raised.value.report.search["passed"]


def test_a_store_that_is_in_its_tier_is_left_alone(tmp_path: Path, home: Path) -> None:
    brain = sqlite_file(tmp_path / "brain.sqlite", SQL)
    for move in (Move(), Move("sqlite")):
        report = promote(brain, move)
        assert report.promotion is not None
        assert (report.promotion["moved"], report.promotion["tier"]) == (False, "sqlite")
        assert "nothing was done" in report.notes[0]
    assert not (home / "vector-store.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["brain.sqlite"]
    with pytest.raises(ConfigError):
        promote(tmp_path / "none.sqlite", Move("sqlite"))


def test_a_dry_run_says_where_it_would_go_and_writes_nothing(source: str, home: Path) -> None:
    report = promote(source, Move("postgres"), Request(dry_run=True))
    assert report.dry_run
    assert report.promotion is not None
    assert (report.promotion["tier"], report.promotion["moved"], report.promotion["saved"]) == (
        "postgres",
        False,
        None,
    )
    assert not home.exists()


@pytest.mark.parametrize(
    "request_",
    [
        Request(tables=["t"]),
        Request(exclude=["t"]),
        Request(where_tenant="a"),
        Request(upgrade=True),
        Request(verify="none"),
        Request(verify="counts"),
    ],
)
def test_what_would_leave_rows_behind_or_unproven_is_refused(
    source: str, request_: Request, home: Path
) -> None:
    with pytest.raises(ConfigError):
        promote(source, Move("sqlite"), request_)
    assert not home.exists()


@pytest.mark.parametrize("tier", ["postgres", "qdrant"])
def test_no_server_is_set_up_without_leave(
    source: str, tier: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import provisioners

    def auto_setup(*_: Any, **__: Any) -> None:
        raise AssertionError("set up without leave")

    monkeypatch.setattr(provisioners, "auto_setup", auto_setup)
    questions: list[str] = []

    def no(question: str) -> bool:
        questions.append(question)
        return False

    for confirm in (None, no):
        with pytest.raises(ConfigError, match="nobody allowed") as raised:
            promote(source, Move(tier, confirm=confirm))
        assert raised.value.exit_code == 2
        assert "--auto-setup" in (raised.value.hint or "")
    assert questions == [f"There is no {tier} yet. Set one up on this machine?"]
    assert document(home) == {}


class Heard:
    """Keeps what a user would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, phase: str, table: str, done: int, total: int) -> None:
        """Progress is not looked at here."""


URL = "postgresql://memlift:hidden-one@127.0.0.1:5555/memory"


@pytest.mark.parametrize(
    ("found", "address"),
    [
        (
            Endpoint("postgres", "docker", URL, details={"container": "memlift-postgres"}),
            {"type": "postgres", "connection_string": URL},
        ),
        # Its port may be another tomorrow; the folder stays.
        (
            Endpoint("postgres", "embedded", URL, details={"folder": "/data"}),
            {"type": "postgres", "embedded": "/data"},
        ),
        (Endpoint("postgres", "environment", URL), {"type": "postgres"}),
        (
            Endpoint("qdrant", "docker", "http://127.0.0.1:7", "hidden-one", 8),
            {"type": "qdrant", "url": "http://127.0.0.1:7", "api_key": "hidden-one", "grpc_port": 8},
        ),
        (Endpoint("qdrant", "embedded", "qdrant:/data"), {"type": "qdrant", "path": "/data"}),
    ],
)
@pytest.mark.parametrize("leave", ["by a flag", "by an answer"])
def test_a_server_that_was_set_up_is_addressed_by_what_opens_it_tomorrow(
    found: Endpoint, address: dict[str, Any], leave: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import provisioners

    places: list[str | None] = []
    ran: list[Any] = []

    def auto_setup(kind: str, how: str | None, say: Any, *, confirm: Any) -> Endpoint:
        places.append(how)
        return found

    def run(source: Any, target: Any, request: Request, **_: Any) -> Report:
        ran.append((target, request.auto_setup, bool(request.check_search)))
        return Report("memory:agent", "there", verified=True)

    monkeypatch.setattr(provisioners, "auto_setup", auto_setup)
    monkeypatch.setattr(promotion, "run", run)
    in_memory("agent", (pairs(), ROWS))
    heard = Heard()
    by_flag = leave == "by a flag"
    move = Move(found.kind, auto_setup="docker" if by_flag else False, confirm=lambda _: True)
    report = promote("memory:agent", move, observer=heard)

    name = name_of(MemorySettings("agent"))
    own = {"schema": name} if found.kind == "postgres" else {"prefix": f"{name}_"}
    assert where_is("memory:agent") == address | own
    assert ran == [(address | own, False, True)]
    assert places == ["docker" if by_flag else None]
    assert stat.S_IMODE((home / "vector-store.json").stat().st_mode) == 0o600
    assert "hidden-one" not in json.dumps(report.to_dict()) + "".join(heard.lines)


def test_an_unknown_tier_and_a_pinecone_without_a_key_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="no tier 'postgre'"):
        promote(source, Move("postgre"))
    with pytest.raises(ConfigError, match="Pinecone"):
        promote(source, Move("pinecone"))


def test_a_pinecone_index_is_made_with_leave_and_a_given_one_gets_a_namespace(
    source: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def run(source: Any, target: Any, request: Request, **_: Any) -> Report:
        ran.append(target)
        return Report("memory:agent", "there", verified=True)

    monkeypatch.setattr(promotion, "run", run)
    monkeypatch.setenv("PINECONE_API_KEY", "hidden-one")
    with pytest.raises(ConfigError, match="nobody allowed the Pinecone index"):
        promote(source, Move("pinecone"))
    name = name_of(MemorySettings("agent"))
    promote(source, Move("pinecone", auto_setup=True))
    assert where_is(source) == {"type": "pinecone", "index": name.replace("_", "-")}
    monkeypatch.setenv("PINECONE_INDEX_HOST", "https://x.svc.pinecone.io")
    promote(source, Move("pinecone"))
    assert where_is(source) == {"type": "pinecone", "namespace": name}
    assert len(ran) == 2
    assert "hidden-one" not in (home / "vector-store.json").read_text()


def test_two_files_of_one_name_are_two_memories_and_a_moved_one_keeps_its_name(tmp_path: Path) -> None:
    one, two = (
        SqliteSettings(tmp_path / "a" / "Brain 1.sqlite"),
        SqliteSettings(tmp_path / "b" / "Brain 1.sqlite"),
    )
    assert name_of(one) != name_of(two)
    assert name_of(one).startswith("brain_1_")
    saved.remember("agent_7", {"tier": "sqlite", "address": {"type": "sqlite", "path": str(one.path)}})
    assert name_of(one) == "agent_7"
    assert name_of(SqliteSettings(tmp_path / "1 ümläut.db"))[0].isalpha()
    assert len(name_of(SqliteSettings(tmp_path / ("x" * 200)))) <= 45


def test_an_address_by_a_variable_that_is_not_set_is_no_stumbling_block(source: str) -> None:
    saved.remember("other", {"tier": "postgres", "address": {"type": "postgres", "schema": "s"}})
    promote(source, Move("sqlite"))
    assert where_is(source) is not None


def test_programs_say_auto_for_the_target(tmp_path: Path) -> None:
    brain = sqlite_file(tmp_path / "brain.sqlite", SQL)
    report = api.migrate(brain, "auto")
    assert report.promotion is not None
    assert not report.promotion["moved"]
    assert api.MigrationEngine.migrate({"from": brain, "to": "auto"}).promotion == report.promotion


def test_errors_of_a_move_are_of_the_one_tree() -> None:
    assert all(issubclass(kind, MigrateError | OSError) for _, kind in FAILURES.values())
