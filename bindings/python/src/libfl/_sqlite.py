# SPDX-License-Identifier: Apache-2.0
"""fl_store over Python's own sqlite3: what libfl-sqlite does for C, with the
same files (lib/adapters/sqlite/open.c), so that either goes on from what the
other left."""
from __future__ import annotations

import fcntl
import os
import pathlib
import sqlite3
from typing import Any, Callable

from . import _err, _lib

_PAGE = 4096
_APPLICATION = 0x464C5354  # "FLST"
_VERSION = 1


def _open(path: pathlib.Path) -> sqlite3.Connection:
    """The database, made when it is not there."""
    log = path.with_name(path.name + "-wal")
    is_whole = log.exists() and log.stat().st_size > 0
    if path.exists() and path.stat().st_size % _PAGE and not is_whole:
        raise _err.FormatError(f"{path}: cut short, or not a database of "
                               f"libfl")
    database = sqlite3.connect(path, isolation_level=None,
                               check_same_thread=False)
    try:
        _configure(database, path)
    except sqlite3.DatabaseError as error:
        database.close()
        if isinstance(error, sqlite3.OperationalError):
            raise _err.IoError(f"{path}: {error}") from None
        raise _err.FormatError(f"{path}: {error}") from None
    except BaseException:
        database.close()
        raise
    return database


def _configure(database: sqlite3.Connection, path: pathlib.Path) -> None:
    def ask(sql: str) -> Any:
        return database.execute(sql).fetchone()[0]

    for setting in (f"page_size={_PAGE}", "journal_mode=WAL",
                    "synchronous=FULL", "trusted_schema=OFF"):
        database.execute(f"PRAGMA {setting}")
    found = ask("PRAGMA application_id"), ask("PRAGMA user_version")
    if found == (0, 0) and not ask("SELECT count(*) FROM sqlite_master"):
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE fl_store(key BLOB PRIMARY KEY, "
                         "value BLOB NOT NULL)")
        database.execute(f"PRAGMA application_id={_APPLICATION}")
        database.execute(f"PRAGMA user_version={_VERSION}")
        database.execute("COMMIT")
    elif found[0] != _APPLICATION:
        raise _err.FormatError(f"{path}: a database, but no store of libfl")
    elif not 1 <= found[1] <= _VERSION:
        raise _err.VersionError(f"{path}: version of the file: got "
                                f"{found[1]}, want 1..{_VERSION}")
    elif (why := ask("PRAGMA quick_check(1)")) != "ok":
        raise _err.FormatError(f"{path}: damaged: {why}")


class _Failed(Exception):
    """A hook's status that is not FL_OK."""

    def __init__(self, status: int) -> None:
        self.status = status


class File:
    """The hooks' bodies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.why = b""
        self._lent = b""
        self._is_broken = False
        self._lock = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT
                             | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._database = _open(self.path)
        except BlockingIOError:
            os.close(self._lock)
            raise _err.NotAllowedError(f"{path}: another store has the "
                                       f"file") from None
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self._database.close()
        os.close(self._lock)

    def _change(self, sql: str, *values: bytes) -> None:
        if self._is_broken:
            raise _Failed(_err.NotAllowedError.status)
        self._is_broken = True  # until it is done
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(sql, values)
        self._is_broken = False

    def put(self, _user: Any, key: int, key_size: int, value: int,
            n: int) -> None:
        self._change("INSERT INTO fl_store(key, value) VALUES(?, ?) ON "
                     "CONFLICT(key) DO UPDATE SET value = excluded.value",
                     _lib.bytes_at(key, key_size), _lib.bytes_at(value, n))

    def remove(self, _user: Any, key: int, key_size: int) -> None:
        self._change("DELETE FROM fl_store WHERE key = ?",
                     _lib.bytes_at(key, key_size))

    def _lend(self, sql: str, key: bytes, out: Any, n: Any,
              if_none: int) -> None:
        row = self._database.execute(sql, (key,)).fetchone()
        if row is None:
            raise _Failed(if_none)
        self._lent = row[0]
        out[0] = _lib.address_of(self._lent)
        n[0] = len(self._lent)

    def get(self, _user: Any, key: int, key_size: int, value: Any,
            n: Any) -> None:
        self._lend("SELECT value FROM fl_store WHERE key = ?",
                   _lib.bytes_at(key, key_size), value, n, _err.NotFoundError.status)

    def next(self, _user: Any, after: int, after_size: int, key: Any,
             key_size: Any) -> None:
        self._lend("SELECT key FROM fl_store WHERE key > ? ORDER BY key "
                   "LIMIT 1", _lib.bytes_at(after, after_size), key,
                   key_size, _err.EmptyError.status)

    def commit(self, _user: Any) -> None:
        if self._is_broken:
            raise _Failed(_err.NotAllowedError.status)
        if not self._database.in_transaction:
            return
        try:
            self._database.execute("COMMIT")
        except BaseException:
            self.rollback(None)
            raise

    def rollback(self, _user: Any) -> None:
        self._is_broken = False
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def error(self, _user: Any) -> int:
        return _lib.address_of(self.why)


def _hook(file: File, body: Callable[..., None]) -> Callable[..., int]:
    """What SQLite says is a status; other exceptions are the caller's."""
    def run(*arguments: Any) -> int:
        file.why = b""
        try:
            body(*arguments)
        except _Failed as failed:
            return failed.status
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            file.why = str(error).encode()
            is_full = isinstance(error, sqlite3.OperationalError)
            kind = _err.IoError if is_full else _err.FormatError
            return kind.status
        return 0
    return _lib.keep_exceptions(run)


def hooks_of(file: File) -> Any:
    """Return an fl_store. Its hooks live as long as it does."""
    store = _lib.Store(struct_size=_lib.sizeof(_lib.Store))
    fields: list[Any] = list(_lib.Store._fields_)
    for name, kind in fields:
        if name == "error":
            setattr(store, name, kind(file.error))
        elif hasattr(file, name):
            setattr(store, name, kind(_hook(file, getattr(file, name))))
    return store
