"""The tree of errors: what each says, and the exit code it stands for."""

from __future__ import annotations

import pytest

from migrate import errors
from migrate.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    InterruptedRunError,
    LeaseLostError,
    MigrateError,
    MisfitError,
    MissingExtraError,
    RecordError,
    SchemaError,
    TransientError,
    UnreachableError,
    VerifyError,
)

CODES = {
    MigrateError: 1,
    ConfigError: 2,
    MissingExtraError: 2,
    SchemaError: 2,
    RecordError: 1,
    MisfitError: 4,
    BackendError: 1,
    TransientError: 1,
    UnreachableError: 1,
    CheckpointError: 2,
    LeaseLostError: 1,
    VerifyError: 3,
    InterruptedRunError: 130,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_every_error_has_the_exit_code_of_the_contract(kind: type[MigrateError], code: int) -> None:
    error = kind("it broke", hint="mend it", table="t", cursor=None)
    assert (error.exit_code, error.hint, error.report) == (code, "mend it", None)
    assert error.where == {"table": "t"}
    assert str(error) == "it broke (table t)"


def test_every_error_of_the_module_is_in_the_table() -> None:
    found = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert found == set(CODES)


def test_an_error_without_a_place_is_its_message() -> None:
    assert str(MigrateError("it broke")) == "it broke"
    assert str(MigrateError("it broke", table="t", column="c")) == "it broke (table t, column c)"


def test_only_a_transient_error_knows_how_long_to_wait() -> None:
    assert TransientError("429", retry_after=2.5).retry_after == 2.5
    assert TransientError("away").retry_after is None


def test_a_run_ended_by_sigterm_answers_143() -> None:
    assert InterruptedRunError("stopped", exit_code=143).exit_code == 143
