"""A folder as an object store (`file:///folder`): a disk, a mount, a USB stick."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from migrate.backup.names import check_key
from migrate.backup.objectstore import NoSuchObjectError, ObjectInfo, PreconditionError, StaleUpload
from migrate.errors import BackendError, ConfigError

_PART = ".memlift-part-"
_LOCK = ".memlift-lock"
_CHUNK = 1 << 20


def fsync_dir(folder: Path) -> None:
    """Make a rename or a removal inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translating(op: str, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise NoSuchObjectError(f"{op}: no such object", key=key) from exc
    except OSError as exc:
        raise BackendError(f"{op}: {exc.strerror or exc}", key=key) from exc


class FolderStore:
    """Objects are files; a write is a temp file, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key)
        # A link inside the folder must not lead a write or a delete out of it.
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise ConfigError("a link leads out of the store", key=key)
        return path

    def _begin(self, key: str) -> tuple[Path, Path, int]:
        target = self._path(key)
        with _translating("write", key):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = target.parent / f"{_PART}{secrets.token_hex(8)}-{target.name}"
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while we live: tells a dead writer's parts
        return target, part, fd

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with _translating("lock", _LOCK):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def reach(self, *, write: bool, patience_s: float) -> None:
        del patience_s
        if not write and not self._root.is_dir():
            raise ConfigError(
                f"no such folder: {self._root}", hint="check the path; memlift backup create makes it"
            )
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigError(f"cannot use {self._root} as a store: {exc.strerror}") from exc
        if write and not os.access(self._root, os.W_OK | os.X_OK):
            raise ConfigError(f"cannot write to {self._root}")

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        last_words: bool = False,
        within_s: float | None = None,
    ) -> str:
        del last_words, within_s  # nothing here is ever told to stop, or tried twice
        target = self._path(key)
        with self._exclusive() if if_absent or if_match else contextlib.nullcontext():
            if if_absent and target.exists():
                raise PreconditionError("the object is there already", key=key)
            if if_match and (not target.exists() or _etag(target) != if_match):
                raise PreconditionError("the object has changed", key=key)
            upload = self.upload(key, size_bound=len(body), labels={})
            try:
                upload.write(body)
                upload.commit()
            except BaseException:
                upload.abort()
                raise
            return hashlib.sha256(body).hexdigest()

    def upload(self, key: str, *, size_bound: int, labels: dict[str, str]) -> FolderUpload:
        del size_bound, labels
        return FolderUpload(key, *self._begin(key))

    def get(self, key: str, *, max_bytes: int) -> tuple[bytes, str]:
        with _translating("read", key), self._path(key).open("rb") as file:
            body = file.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise BackendError(f"read: larger than {max_bytes} bytes", key=key)
        return body, hashlib.sha256(body).hexdigest()

    def stream(self, key: str) -> Iterator[bytes]:
        with _translating("read", key), self._path(key).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def objects(self, under: str = "") -> Iterator[ObjectInfo]:
        if not self._root.is_dir():
            return
        found: list[ObjectInfo] = []
        top = self._root / under.rpartition("/")[0]
        for folder, _, files in os.walk(top):
            for name in files:
                if name.startswith((_PART, _LOCK)):
                    continue
                path = Path(folder) / name
                key = path.relative_to(self._root).as_posix()
                if key.startswith(under):
                    with contextlib.suppress(FileNotFoundError):  # removed since the walk saw it
                        stat = path.lstat()
                        found.append(
                            ObjectInfo(key, stat.st_size, _time(stat.st_mtime), str(stat.st_mtime_ns))
                        )
        yield from sorted(found, key=lambda info: info.key)

    def labels(self, key: str) -> dict[str, str] | None:
        del key
        return None

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translating("delete", key):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                fsync_dir(path.parent)

    def stale_uploads(self, under: str) -> list[StaleUpload]:
        found: list[StaleUpload] = []
        for part in sorted(self._root.rglob(f"{_PART}*")) if self._root.is_dir() else ():
            token = part.relative_to(self._root).as_posix()
            name = part.name.removeprefix(_PART).partition("-")[2]
            key = part.with_name(name).relative_to(self._root).as_posix() if name else token
            if key.startswith(under) and not _held(part):
                found.append(StaleUpload(key, token, _time(part.lstat().st_mtime)))
        return found

    def abort_stale(self, upload: StaleUpload) -> None:
        (self._root / upload.token).unlink(missing_ok=True)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def checks_uploads(self) -> bool:
        return False  # a disk checks nothing for us: artefacts are read back

    def conditional_writes(self) -> bool:
        return True  # flock and rename, on a local disk


class FolderUpload:
    """A temp file beside its target."""

    def __init__(self, key: str, target: Path, part: Path, fd: int) -> None:
        self._key, self._target, self._part, self._fd = key, target, part, fd

    def write(self, data: bytes) -> None:
        with _translating("write", self._key):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def commit(self) -> None:
        with _translating("write", self._key):
            os.fsync(self._fd)
            os.replace(self._part, self._target)
            fsync_dir(self._target.parent)
            self._close()

    def abort(self) -> None:
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _time(stamp: float) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)


def _held(part: Path) -> bool:
    """Whether a living writer still has this temp file."""
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True  # gone, or not ours to judge
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
