"""What every ObjectStore keeps: the same functions run on a folder and on a real S3 server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migrate.backup.objectstore import NoSuchObjectError, ObjectStore, PreconditionError
from migrate.errors import BackendError, ConfigError


def a_small_object_comes_back_as_it_was_put(store: ObjectStore) -> None:
    body = bytes(range(256))
    etag = store.put("db/a.bin", body)
    assert store.get("db/a.bin", max_bytes=256) == (body, etag)
    assert b"".join(store.stream("db/a.bin")) == body
    store.put("db/a.bin", b"")
    assert store.get("db/a.bin", max_bytes=256)[0] == b""
    assert b"".join(store.stream("db/a.bin")) == b""


def an_object_over_the_bound_is_refused(store: ObjectStore) -> None:
    store.put("db/a.bin", b"12345")
    with pytest.raises(BackendError, match="larger than 4"):
        store.get("db/a.bin", max_bytes=4)


def what_is_not_there_is_said_to_be_so(store: ObjectStore) -> None:
    with pytest.raises(NoSuchObjectError):
        store.get("db/none", max_bytes=9)
    with pytest.raises(NoSuchObjectError):
        list(store.stream("db/none"))
    store.delete("db/none")
    assert list(store.objects("db/")) == []


def conditions_are_kept(store: ObjectStore) -> None:
    assert store.conditional_writes()
    first = store.put("db/lease", b"1", if_absent=True)
    with pytest.raises(PreconditionError):
        store.put("db/lease", b"2", if_absent=True)
    second = store.put("db/lease", b"2", if_match=first)
    with pytest.raises(PreconditionError):
        store.put("db/lease", b"3", if_match=first)
    assert store.get("db/lease", max_bytes=9) == (b"2", second)
    with pytest.raises((PreconditionError, NoSuchObjectError)):
        store.put("db/other", b"3", if_match=first)
    store.delete("db/lease")


def objects_are_listed_in_key_order_below_a_start(store: ObjectStore) -> None:
    for key in ("db/b", "db/a/x", "db-2/a", "db/c"):
        store.put(key, key.encode())
    assert [(info.key, info.size) for info in store.objects("db/")] == [
        ("db/a/x", 6),
        ("db/b", 4),
        ("db/c", 4),
    ]
    assert [info.key for info in store.objects("")] == ["db-2/a", "db/a/x", "db/b", "db/c"]


def an_upload_is_seen_whole_or_not_at_all(store: ObjectStore) -> None:
    body = b"0123456789abcdef" * (1 << 16)
    upload = store.upload("db/big", size_bound=3 << 20, labels={"memlift-database": "db"})
    for _ in range(3):
        upload.write(body)
        assert list(store.objects("db/")) == []
    upload.commit()
    assert b"".join(store.stream("db/big")) == body * 3
    assert store.labels("db/big") in (None, {"memlift-database": "db"})


def an_aborted_upload_leaves_nothing(store: ObjectStore) -> None:
    upload = store.upload("db/big", size_bound=100, labels={})
    upload.write(b"x" * 100)
    upload.abort()
    assert list(store.objects("")) == []
    assert store.stale_uploads("db/") == []


def keys_that_leave_the_prefix_are_refused(store: ObjectStore) -> None:
    for key in ("../x", "a/../../x", "/etc/passwd", "a//b", "", "a/.", "a\\..\\b", "a\0b", "x" * 1001):
        with pytest.raises(ConfigError):
            store.put(key, b"")
        with pytest.raises(ConfigError):
            store.get(key, max_bytes=1)
        with pytest.raises(ConfigError):
            store.delete(key)


CONTRACT: list[Callable[[ObjectStore], None]] = [
    a_small_object_comes_back_as_it_was_put,
    an_object_over_the_bound_is_refused,
    what_is_not_there_is_said_to_be_so,
    conditions_are_kept,
    objects_are_listed_in_key_order_below_a_start,
    an_upload_is_seen_whole_or_not_at_all,
    an_aborted_upload_leaves_nothing,
    keys_that_leave_the_prefix_are_refused,
]
