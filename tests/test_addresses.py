"""URLs, dicts and the environment become settings; secrets are never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg.conninfo
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from migrate import config
from migrate.addresses import parse, wants_auto_setup
from migrate.config import (
    MemorySettings,
    PineconeSettings,
    PostgresSettings,
    QdrantSettings,
    Settings,
    SqliteSettings,
    mask,
)
from migrate.errors import ConfigError

KEYED = {"PINECONE_API_KEY": "pk"}


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        ("brain.sqlite", SqliteSettings(Path("brain.sqlite"))),
        ("/abs/brain.sqlite", SqliteSettings(Path("/abs/brain.sqlite"))),
        ("odd: name?.db", SqliteSettings(Path("odd: name?.db"))),
        ("C:\\Users\\me\\brain.db", SqliteSettings(Path("C:\\Users\\me\\brain.db"))),
        ("sqlite:///relative.db", SqliteSettings(Path("relative.db"))),
        ("sqlite:////absolute.db", SqliteSettings(Path("/absolute.db"))),
        ("sqlite:///a%20b%23.db", SqliteSettings(Path("a b#.db"))),
        ("SQLITE:///relative.db", SqliteSettings(Path("relative.db"))),
        (Path("p.db"), SqliteSettings(Path("p.db"))),
        ({"type": "sqlite", "path": "x.db"}, SqliteSettings(Path("x.db"))),
        ("postgresql://u@h:5432/db", PostgresSettings("postgresql://u@h:5432/db")),
        ("postgres://u@h/db", PostgresSettings("postgresql://u@h/db")),
        ("postgresql://h/db?schema=agent_42", PostgresSettings("postgresql://h/db", "agent_42")),
        ("postgresql://h/db?schema=a%20%22b", PostgresSettings("postgresql://h/db", 'a "b')),
        (
            {"type": "postgres", "connection_string": "postgresql://h/db"},
            PostgresSettings("postgresql://h/db"),
        ),
        (
            {"type": "postgresql", "connectionString": "host=h", "schema": "s"},
            PostgresSettings("host=h", "s"),
        ),
        ("postgresql+embedded:./pgdata", PostgresSettings("", None, Path("pgdata"))),
        ("postgresql+embedded:./pg%20data?schema=s", PostgresSettings("", "s", Path("pg data"))),
        ({"type": "postgres", "embedded": "./pgdata"}, PostgresSettings("", None, Path("pgdata"))),
        ("qdrant+http://host:6333", QdrantSettings("http://host:6333")),
        (
            "qdrant+https://host:6333?prefix=a_&sidecar=./side.sqlite&grpc_port=6334",
            QdrantSettings("https://host:6333", prefix="a_", sidecar="./side.sqlite", grpc_port=6334),
        ),
        ("qdrant+http://[::1]:6333", QdrantSettings("http://[::1]:6333")),
        ("qdrant:./folder", QdrantSettings(path=Path("folder"))),
        ("qdrant:./fol%20der?sidecar=s.db", QdrantSettings(path=Path("fol der"), sidecar="s.db")),
        (
            {
                "type": "qdrant",
                "url": "http://h",
                "apiKey": "k",
                "collectionPrefix": "a_",
                "sidecarPath": "s.db",
            },
            QdrantSettings("http://h", api_key="k", prefix="a_", sidecar="s.db"),
        ),
        (
            {"type": "qdrant", "path": "./f", "grpcPort": "6334"},
            QdrantSettings(path=Path("f"), grpc_port=6334),
        ),
        (
            "pinecone:my-index?namespace=ns&sidecar=s.db",
            PineconeSettings("my-index", None, "pk", "ns", "s.db"),
        ),
        (
            "pinecone+https://index-host?namespace=ns",
            PineconeSettings(None, "https://index-host", "pk", "ns"),
        ),
        ("pinecone+http://127.0.0.1:5081", PineconeSettings(None, "http://127.0.0.1:5081", "pk")),
        (
            {"type": "pinecone", "indexHost": "h", "apiKey": "own", "namespace": "ns", "sidecar": "s"},
            PineconeSettings(None, "h", "own", "ns", "s"),
        ),
        ("memory:", MemorySettings("")),
        ("memory:one", MemorySettings("one")),
        ({"type": "memory", "name": "one"}, MemorySettings("one")),
        (MemorySettings("one"), MemorySettings("one")),
    ],
)
def test_an_address_of_any_form_is_read(
    endpoint: Any, wanted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYED.items():
        monkeypatch.setenv(name, value)
    assert parse(endpoint) == wanted
    assert parse(parse(endpoint)) == wanted


@pytest.mark.parametrize(
    ("endpoint", "message", "hint"),
    [
        ("pincone:my-index", "pincone: is no store's address", "did you mean pinecone:?"),
        ("postgres+embedded:./d", "postgres+embedded: is no store's address", "postgresql+embedded:"),
        ("postgresql//u:hunter2@h/db", "looks like a URL without its scheme", "postgresql://user:***@"),
        ("u:hunter2@h/db", "looks like a URL without its scheme", "begins with ./"),
        ("//u:hunter2@h/db", "looks like a URL without its scheme", "begins with ./"),
        ("u:hunter2@h", "looks like a URL without its scheme", "begins with ./"),
        ("u:hunter2@h:5432", "looks like a URL without its scheme", "begins with ./"),
        ("postgresql+embedded:./d?schma=s", "has no option 'schma'", "schema"),
        ("sqlite:///a.db?mode=ro", "a SQLite URL has no options", "%3F"),
        ("qdrant+http://", "names no host", "qdrant+http://host:6333"),
        ("pinecone+https://", "names no host", "pinecone+http://index-host"),
        ({"type": "qdrant", "url": "http://h:6333?prefix=a_"}, "options cannot be given", "keys of a dict"),
        ({"type": "sqlite", "path": ""}, "sqlite needs a path", "brain.sqlite"),
        ({"type": "sqlite", "path": b"a.db"}, "sqlite: path cannot be bytes", "a Path"),
        ({"type": "qdrant", "path": 7}, "qdrant: path cannot be int", "a Path"),
        ({"type": "postgres", "embedded": True}, "postgres: embedded cannot be bool", "a Path"),
        (None, "a store's address cannot be NoneType", "a URL"),
        (b"brain.sqlite", "a store's address cannot be bytes", "a path"),
    ],
)
def test_an_address_that_is_mistyped_is_refused_and_never_becomes_a_file(
    endpoint: Any, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "pk")
    with pytest.raises(ConfigError) as caught:
        parse(endpoint)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("name", ["./pincone:my-index", "backup:2026.db", "dir/a:b@c/d.db", "./u:p@h/db"])
def test_a_file_may_have_a_colon_in_its_name(name: str) -> None:
    assert parse(name) == SqliteSettings(Path(name))


def test_a_conninfo_string_is_a_postgres_address_as_in_psql() -> None:
    assert parse("host=h password=hunter2") == PostgresSettings("host=h password=hunter2")
    assert "hunter2" not in str(parse("host=h password=hunter2"))


@pytest.mark.parametrize(
    "address",
    [
        "qdrant+http://h:6333?prefix=a_",
        "qdrant:folder?prefix=a_",
        "pinecone:my-index?namespace=ns",
        "pinecone+https://h?namespace=ns",
        "postgresql://h/db?schema=s",
        "postgresql+embedded:pgdata?schema=s",
    ],
)
def test_a_store_is_shown_as_the_address_that_opens_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "pk")
    monkeypatch.setenv("PINECONE_INDEX_HOST", "idx.svc")
    assert str(parse(address)) == address
    assert str(parse({"type": "pinecone"})) == "pinecone+https://idx.svc"
    assert parse({"type": "qdrant", "url": "qdrant+http://h"}) == parse("qdrant+http://h")


@pytest.mark.parametrize(
    ("endpoint", "variables", "wanted"),
    [
        (
            "postgresql://",
            {"DATABASE_URL": "postgres://h/db?schema=s"},
            PostgresSettings("postgresql://h/db", "s"),
        ),
        (
            {"type": "postgres", "schema": "t"},
            {"DATABASE_URL": "postgres://h/db?schema=s"},
            PostgresSettings("postgresql://h/db", "t"),
        ),
        ({"type": "postgres"}, {"DATABASE_URL": "host=h"}, PostgresSettings("host=h")),
        ("postgresql://", {"DATABASE_URL": "postgresql+embedded:./d"}, PostgresSettings("", None, Path("d"))),
        (
            "qdrant:",
            {"QDRANT_URL": "http://h", "QDRANT_API_KEY": "k"},
            QdrantSettings("http://h", api_key="k"),
        ),
        (
            {"type": "qdrant", "prefix": "p"},
            {"QDRANT_URL": "http://h"},
            QdrantSettings("http://h", prefix="p"),
        ),
        ("qdrant:./f", {"QDRANT_URL": "http://h", "QDRANT_API_KEY": "k"}, QdrantSettings(path=Path("f"))),
        ("qdrant:", {"QDRANT_URL": "localhost:6333"}, QdrantSettings("http://localhost:6333")),
        ("qdrant:", {"QDRANT_URL": "127.0.0.1"}, QdrantSettings("http://127.0.0.1")),
        ("qdrant:", {"QDRANT_URL": "qdrant+https://h:443"}, QdrantSettings("https://h:443")),
        ("pinecone:", {"PINECONE_INDEX_HOST": "h", **KEYED}, PineconeSettings(None, "h", "pk")),
        ({"type": "pinecone"}, {"PINECONE_INDEX_HOST": "h", **KEYED}, PineconeSettings(None, "h", "pk")),
    ],
)
def test_an_address_left_out_is_the_environments(
    endpoint: Any, variables: dict[str, str], wanted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert parse(endpoint) == wanted


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "sqlite:",
        "sqlite:///",
        "sqlite://host/path.db",
        "mysql://h/db",
        "redis://h",
        "postgresql://",
        "postgresql+embedded:",
        "qdrant:",
        "qdrant+http://h?colour=red",
        "qdrant+http://",
        "qdrant+http://h:99999",
        "qdrant+http://h:http",
        "qdrant+http://h?grpc_port=six",
        "pinecone:",
        "pinecone:index",
        {},
        {"type": "mysql"},
        {"path": "x.db"},
        {"type": "sqlite"},
        {"type": "sqlite", "path": "x.db", "url": "y"},
        {"type": "postgres"},
        {"type": "postgres", "connection_string": "mysql://h/db"},
        {"type": "qdrant"},
        {"type": "qdrant", "host": "h"},
        {"type": "qdrant", "url": "ftp://h"},
        {"type": "pinecone", "index": "i"},
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_a_hint(endpoint: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(endpoint)
    assert raised.value.hint


@given(st.text(st.sampled_from("[]:/@?#&=%ap1 é"), max_size=12))
@example("[::1/db")
@example("u:p[w@h:port/db?x")
def test_an_address_is_read_or_refused_and_never_a_bug(text: str) -> None:
    for scheme in ("postgresql://", "postgresql+embedded:", "qdrant+http://", "qdrant:", "sqlite:", ""):
        try:
            assert str(parse(scheme + text)) is not None
        except ConfigError:
            continue


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("sslmode=require&application_name=a+b", {"sslmode": "require", "application_name": "a+b"}),
        ("options=-c%20search_path%3Dx&schema=s", {"options": "-c search_path=x"}),
        ("host=/var/run/postgresql", {"host": "/var/run/postgresql"}),
        ("service=mine", {"service": "mine"}),
        (
            "sslrootcert=/a%20b/c.pem&schema=s&connect_timeout=3",
            {"sslrootcert": "/a b/c.pem", "connect_timeout": "3"},
        ),
        ("password=a%2Bb%26c", {"password": "a+b&c"}),
    ],
)
def test_what_libpq_understands_reaches_it_unchanged(query: str, wanted: dict[str, str]) -> None:
    settings = parse(f"postgresql:///db?{query}")
    assert isinstance(settings, PostgresSettings)
    assert psycopg.conninfo.conninfo_to_dict(settings.conninfo) == {"dbname": "db", **wanted}


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://u:p%40%3A%2F@h/db", {"user": "u", "password": "p@:/", "host": "h", "dbname": "db"}),
        ("postgresql://u@[::1]:5433/db", {"user": "u", "host": "::1", "port": "5433", "dbname": "db"}),
        ("postgresql://a:1,b:2/db", {"host": "a,b", "port": "1,2", "dbname": "db"}),
        ("postgresql://h/d%20b", {"host": "h", "dbname": "d b"}),
        ("postgresql://u:p#w@h/db", {"user": "u", "password": "p#w", "host": "h", "dbname": "db"}),
    ],
)
def test_users_hosts_and_databases_reach_libpq_unchanged(url: str, wanted: dict[str, str]) -> None:
    settings = parse(url + "?schema=s")
    assert isinstance(settings, PostgresSettings)
    assert psycopg.conninfo.conninfo_to_dict(settings.conninfo) == wanted


# --- secrets ------------------------------------------------------------------------

passwords = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=6
).map(lambda text: f"sEcReT{text}tErCeS")


def hidden(secret: str, *shown: str) -> None:
    for text in shown:
        assert "sEcReT" not in text, text
        assert "tErCeS" not in text, text
        assert secret not in text


@given(passwords)
@example("sEcReT#?/:@ßtErCeS")
def test_passwords_in_urls_are_never_shown(password: str) -> None:
    escaped = quote(password, safe="")
    for url in (
        f"postgresql://user:{escaped}@host:5432/db?schema=s",
        f"postgresql://host/db?user=u&password={escaped}&sslmode=require",
        f"qdrant+https://host:6333?api_key={escaped}",
        f"pinecone:index?api_key={escaped}",
        f"qdrant+https://user:{escaped}@host:6333",
        f"pinecone+https://user:{escaped}@host?api_key=k",
    ):
        settings = parse(url)
        hidden(password, repr(settings), str(settings), mask(url), mask(f"could not reach {url}: refused"))
        assert "host" in str(settings) or "index" in str(settings)


@given(passwords)
@example("sEcReT#?tErCeS")
def test_unescaped_passwords_in_urls_are_masked_too(password: str) -> None:
    assume(not set(password) & set("/@"))
    url = f"postgresql://user:{password}@host/db"
    hidden(password, mask(url), mask(f"connection to {url} failed"))


@given(passwords)
@example("sEcReT;a&btErCeS")
def test_passwords_in_conninfo_strings_are_masked(password: str) -> None:
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    for conninfo in (
        f"host=h password={escaped} user=u",
        f"host=h password = '{escaped} {escaped}' user=u",
        f"host=h sslpassword={escaped}",
    ):
        settings = parse({"type": "postgres", "connection_string": conninfo})
        hidden(password, repr(settings), str(settings), mask(conninfo))
        assert "host=h" in str(settings)


def test_what_is_no_secret_stays_readable() -> None:
    for text in (
        "postgresql://user@host:5432/db?schema=s",
        "12 rows of t",
        "a.sqlite",
        "http://h:6333/a?b=c",
        "at 10:20 @home",
    ):
        assert mask(text) == text
    assert mask("postgresql://user:pw@host/db") == "postgresql://user:***@host/db"
    assert str(parse("postgresql://user:pw@host/db?schema=s")) == "postgresql://user:***@host/db?schema=s"


def test_an_address_without_its_slashes_is_masked_all_the_same() -> None:
    assert mask("bad URL postgresql:u:hunter2@h/db") == "bad URL postgresql:u:***@h/db"
    assert mask(f"no file {Path('postgresql://u:hunter2@h/db')}") == "no file postgresql:/u:***@h/db"


def test_a_scheme_may_be_in_capitals() -> None:
    assert parse("POSTGRESQL://h/db?schema=s") == parse("postgresql://h/db?schema=s")


def test_errors_about_dicts_do_not_tell_their_values() -> None:
    with pytest.raises(ConfigError) as raised:
        parse({"type": "qdrant", "url": "http://h", "api_kee": "hunter2"})
    assert "hunter2" not in str(raised.value) + str(raised.value.hint)


def test_our_own_files_live_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMLIFT_HOME", "~/elsewhere")
    assert config.home() == Path.home() / "elsewhere"
    monkeypatch.setenv("MEMLIFT_HOME", "")
    assert config.home() == Path.home() / ".memlift"


@pytest.mark.parametrize(("value", "wanted"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_tracebacks_are_asked_for(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMLIFT_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("MEMLIFT_DEBUG", value)
    assert config.debug() is wanted


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        ("x.db", False),
        ({"type": "postgres"}, False),
        ({"type": "postgres", "autoSetup": True}, True),
        ({"type": "postgres", "auto_setup": "docker"}, "docker"),
        ({"type": "postgres", "autoSetup": None}, False),
    ],
)
def test_a_dict_may_ask_for_a_store_to_be_set_up(endpoint: Any, wanted: bool | str) -> None:
    assert wants_auto_setup(endpoint) == wanted
