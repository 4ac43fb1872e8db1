# SPDX-License-Identifier: Apache-2.0
"""Stores: where a Server keeps what it has acknowledged."""
from __future__ import annotations

import os
from typing import Any, Iterator

from . import _lib, _np, _sqlite
from ._err import EmptyError, NotFoundError
from ._handle import Handle
from ._lib import byref, c_size_t, c_void_p, lib
from ._np import BytesLike
from .context import Context, lease_of


class Store(Handle):
    """Keys and values that are durable from commit on: all that was put and
    removed since the last one, or nothing of it."""

    def put(self, key: bytes, value: BytesLike) -> None:
        """Set a key's value. Keys are 1 to 255 bytes."""
        data, n = _np.data(value, "value")
        lib.fl_store_put(self._handle, key, len(key), data, n)

    def get(self, key: bytes) -> bytes | None:
        """A key's value; None: it is not there."""
        value, n = c_void_p(), c_size_t()
        try:
            lib.fl_store_get(self._handle, key, len(key), byref(value),
                             byref(n))
        except NotFoundError:
            return None
        return _lib.bytes_at(value.value or 0, n.value) if n.value else b""

    def remove(self, key: bytes) -> None:
        """Remove a key, there or not."""
        lib.fl_store_remove(self._handle, key, len(key))

    def keys(self, prefix: bytes = b"") -> Iterator[bytes]:
        """Keys that begin with `prefix` and are longer, in order; the store
        may be changed meanwhile."""
        key = prefix
        while True:
            found, n = c_void_p(), c_size_t()
            try:
                lib.fl_store_next(self._handle, key, len(key), byref(found),
                                  byref(n))
            except EmptyError:
                return
            key = _lib.bytes_at(found.value or 0, n.value)
            if not key.startswith(prefix):
                return
            yield key

    def commit(self) -> None:
        """Make what was put and removed durable, all or nothing."""
        lib.fl_store_commit(self._handle)

    def rollback(self) -> None:
        """Drop what was put and removed since the last commit."""
        lib.fl_store_rollback(self._handle)

    def clear(self, prefix: bytes) -> None:
        """Remove every key that begins with `prefix`, itself too."""
        lib.fl_store_clear(self._handle, prefix, len(prefix))


class MemoryStore(Store):
    """A store that lasts as long as it does: for tests."""

    def __init__(self, context: Context | None = None) -> None:
        pointer, lease = lease_of(context)
        self._own(_lib.new(_lib.StorePointer, lib.fl_store_memory_new,
                           pointer), lib.fl_store_free, lease)


class SqliteStore(Store):
    """A store in an SQLite file, made when it is not there; one at a time. The
    file is libfl-sqlite's: in WAL mode, and every commit is synchronous."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = _sqlite.File(path)
        store = _sqlite.hooks_of(file)

        def free(_pointer: Any) -> None:
            file.close()

        self._own(_lib.pointer(store), free, store)
