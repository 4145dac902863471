"""Names in Postgres: 63 bytes, no two meet, nothing of ours is cut by the server."""

from __future__ import annotations

import traceback

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.backends.postgres.connect import connect
from migrate.backends.postgres.names import fitting, fitting_column, ident, literal, placed, translating
from migrate.config import PostgresSettings
from migrate.errors import BackendError, ConfigError, SchemaError, TransientError
from provisioners import ready
from provisioners.errors import ProvisionError

names = st.one_of(
    st.text(st.characters(), max_size=80),
    st.text(st.sampled_from("aé日😀"), min_size=15, max_size=70),
    st.sampled_from(["ctid", "xmin", "", "\0", "a" * 63, "a" * 64]),
)


@given(names)
def test_any_name_fits(name: str) -> None:
    for made in (fitting(name), fitting_column(name)):
        assert 0 < len(made.encode()) <= 63
        assert "\0" not in made
        assert fitting(made) == made


@given(names)
def test_a_name_that_fits_is_left_as_it_is(name: str) -> None:
    plain = name and "\0" not in name and name.isprintable() and len(name.encode("utf-8", "replace")) <= 63
    if plain:
        assert fitting(name) == name


@given(names, names)
def test_no_two_names_meet(a: str, b: str) -> None:
    assert (fitting(a) == fitting(b)) == (a == b)
    assert (fitting_column(a) == fitting_column(b)) == (a == b)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a" * 63, "a" * 63),
        ("a" * 64, "a" * 52 + "_ffe054fe7a"),
        ("é" * 31, "é" * 31),
        ("é" * 32, "é" * 26 + "_2e5152e606"),
        ("a" + "é" * 40, "a" + "é" * 25 + "_4831141c37"),
        ("a\0b", "ab_59b271ae1b"),
        ("", "_e3b0c44298"),
    ],
)
def test_a_shortened_name_is_cut_between_characters_and_ends_in_a_hash(name: str, wanted: str) -> None:
    assert fitting(name) == wanted


@pytest.mark.parametrize("name", ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"])
def test_system_columns_get_a_name_of_their_own(name: str) -> None:
    assert fitting_column(name) != name
    assert fitting_column(name).startswith(f"{name}_")
    assert fitting(name) == name
    assert fitting_column(name.upper()) == name.upper()


def test_identifiers_and_literals_are_quoted() -> None:
    assert ident('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"
    assert literal("a\\'b") == " E'a\\\\''b'"
    with pytest.raises(ValueError, match="NUL"):
        ident("a\0b")


def test_marks_for_values_leave_quoted_names_alone() -> None:
    assert placed("SELECT \"a?%\" FROM t WHERE x = ? AND y LIKE '%'") == (
        "SELECT \"a?%%\" FROM t WHERE x = %s AND y LIKE '%%'"
    )


def error(state: str | None, text: str = "no") -> psycopg.Error:
    kind = psycopg.errors.lookup(state) if state else psycopg.OperationalError
    return kind(text)


@pytest.mark.parametrize("state", [None, "08006", "57P01", "40001", "40P01", "53300", "55P03"])
def test_what_another_try_can_mend_is_transient(state: str | None) -> None:
    with pytest.raises(TransientError, match="Postgres could not write: no"), translating("write"):
        raise error(state)


@pytest.mark.parametrize("state", ["23505", "42501", "53100", "22003", "42P01"])
def test_what_another_try_does_not_mend_is_not(state: str) -> None:
    with pytest.raises(BackendError) as raised, translating("write", table="t"):
        raise error(state)
    assert not isinstance(raised.value, TransientError)
    assert raised.value.where == {"table": "t"}


def test_a_refused_connection_is_a_configuration_error_without_its_password() -> None:
    with pytest.raises(ConfigError) as raised, translating("connect", connecting=True):
        raise error("28P01", "password authentication failed for postgresql://u:hunter2@h/db")
    assert "hunter2" not in str(raised.value)
    assert "password" in str(raised.value.hint)


@pytest.mark.parametrize("address", ["postgresql:u:hunter2@h/db", "host=h hunter2"])
def test_the_traceback_of_an_address_that_cannot_be_read_has_no_password(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as raised:
        connect(PostgresSettings(address))
    with pytest.raises(ProvisionError, match="not a URL") as refused:
        ready.ask_postgres(address)
    for error in (raised.value, refused.value):
        assert "hunter2" not in "".join(traceback.format_exception(error))


def test_our_own_errors_pass_through() -> None:
    with pytest.raises(SchemaError, match="ours"), translating("write"):
        raise SchemaError("ours")
