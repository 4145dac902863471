"""One object on its way to S3: equal parts, a bounded number of them in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from migrate.backup.objectstore import NoSuchObjectError
from migrate.backup.patience import Patience
from migrate.backup.s3errors import translating
from migrate.errors import BackendError, MigrateError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

T = TypeVar("T")

# 6 MiB: S3 wants at least 5. One being filled, one being joined and two on their way are 24 MiB of memory.
PART_BYTES = 6 << 20
_MAX_PARTS = 10_000


def part_size(size_bound: int) -> int:
    """Return the part size, bytes: all parts but the last are equal (R2), at most 10,000 of them (S3)."""
    need = -(-size_bound // (_MAX_PARTS - 100))
    return max(PART_BYTES, -(-need // (1 << 20)) * (1 << 20))


class S3Upload:
    """An Upload. Small objects go as one PUT, so no multipart is left behind by them."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        *,
        patience: Patience,
        body_options: Callable[[bytes], dict[str, Any]],
        object_options: dict[str, Any],
        size_bound: int,
        parallel: int,
    ) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._patience = patience
        self._body_options = body_options
        self._object_options = object_options
        self._part_bytes = part_size(size_bound)
        self._parallel = parallel
        self._chunks: list[bytes | memoryview] = []
        self._filled = 0
        self._size = 0
        self._upload_id: str | None = None
        self._parts: dict[int, str] = {}
        self._next = 1
        self._queue: queue.Queue[tuple[int, bytes] | None] = queue.Queue()
        # A slot is one part in memory beside the one being filled.
        self._slots = threading.BoundedSemaphore(parallel)
        self._threads: list[threading.Thread] = []
        self._error: MigrateError | None = None

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._filled == self._part_bytes:
                self._hand_over()
            piece = view[: self._part_bytes - self._filled]
            self._chunks.append(piece)
            self._filled += len(piece)
            view = view[len(piece) :]
        self._size += len(data)

    def commit(self) -> None:
        if self._upload_id is None:
            body = self._take()
            self._call(
                "put",
                lambda: self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key,
                    Body=body,
                    **self._body_options(body),
                    **self._object_options,
                ),
            )
        else:
            self._hand_over()
            self._join()
            self._patience.check()
            self._raise_error()
            self._complete(self._upload_id)
        head = self._call("head", lambda: self._client.head_object(Bucket=self._bucket, Key=self._key))
        if head["ContentLength"] != self._size:
            raise BackendError(
                f"s3 upload: the store has {head['ContentLength']} bytes of {self._size}", key=self._key
            )

    def abort(self) -> None:
        self._error = self._error or BackendError("given up", key=self._key)
        self._join()
        if self._upload_id is None:
            return
        upload_id, self._upload_id = self._upload_id, None
        try:
            # One try: what stays behind is removed by the next prune.
            with translating("abort upload", key=self._key):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=upload_id)
        except MigrateError as exc:
            self._error = exc

    def _hand_over(self) -> None:
        """Give the full buffer to a worker; waits while all slots are taken."""
        if self._upload_id is None:
            answer = self._call(
                "create upload",
                lambda: self._client.create_multipart_upload(
                    Bucket=self._bucket, Key=self._key, **self._object_options
                ),
            )
            self._upload_id = answer["UploadId"]
            for _ in range(self._parallel):
                # Daemon threads: a process told to stop does not wait for a slow part.
                thread = threading.Thread(target=self._work, name="memlift-part", daemon=True)
                thread.start()
                self._threads.append(thread)
        while not self._slots.acquire(timeout=0.5):
            self._patience.check()
        self._raise_error()
        self._queue.put((self._next, self._take()))
        self._next += 1

    def _take(self) -> bytes:
        """Return what was gathered, as bytes: boto3 makes a copy of a bytearray for each request."""
        part = b"".join(self._chunks)
        self._chunks.clear()
        self._filled = 0
        return part

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            number, body = item
            try:
                if self._error is None:
                    self._parts[number] = self._send(number, body)
            except MigrateError as exc:
                self._error = exc
            except Exception as exc:  # a bug: carried to the caller's thread, not lost in this one
                self._error = BackendError(f"s3 upload: {exc!r}", key=self._key)
            finally:
                del item, body
                self._slots.release()

    def _send(self, number: int, body: bytes) -> str:
        upload_id = self._upload_id or ""
        answer = self._call(
            "upload part",
            lambda: self._client.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
                **self._body_options(body),
            ),
        )
        return str(answer["ETag"])

    def _complete(self, upload_id: str) -> None:
        parts = [{"ETag": etag, "PartNumber": number} for number, etag in sorted(self._parts.items())]
        try:
            self._call(
                "complete upload",
                lambda: self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=self._key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
                ),
            )
        except NoSuchObjectError:
            # The first answer was lost: the upload is complete and its id gone. `commit` looks at the object.
            self._parts.clear()

    def _join(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            while thread.is_alive() and not self._patience.cancel.is_set():
                thread.join(timeout=0.5)
        self._threads.clear()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _call(self, op: str, function: Callable[[], T]) -> T:
        def once() -> T:
            with translating(op, bucket=self._bucket, key=self._key):
                return function()

        return self._patience.call(once)
