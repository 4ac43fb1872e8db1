# SPDX-License-Identifier: Apache-2.0
"""fl_storage over a folder, a blob a file: what libfl-host does for C.

What the operating system refuses (a full disk) is raised as its OSError by the
call that wanted it.
"""
from __future__ import annotations

import contextlib
import errno
import mmap
import os
import pathlib
from typing import Any, Callable

import numpy as np

from . import _err, _lib

# Address of a mapping -> the mapping, and what exports its memory.
_Mappings = dict[int, tuple[mmap.mmap, Any]]


def _reserve(fd: int, size: int) -> None:
    """Make the disk hold `size` bytes of the file."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    old = os.fstat(fd).st_size
    while old < size:
        old += os.pwrite(fd, bytes(min(size - old, 1 << 20)), old)


def _open_reserved(path: pathlib.Path, size: int) -> tuple[int, bool]:
    """Open a file of exactly that size, an old one or a new one of zeros."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | no_link)
        if os.fstat(fd).st_size == size:
            return fd, False
        os.close(fd)
        path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), True


def _map(path: pathlib.Path, size: int) -> tuple[mmap.mmap, bool]:
    fd, is_new = _open_reserved(path, size)
    try:
        _reserve(fd, size)
        return mmap.mmap(fd, size), is_new
    except BaseException:
        if is_new:
            path.unlink()
        raise
    finally:
        os.close(fd)


def _replace(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)


def _read_part(path: pathlib.Path, offset: int, n: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(n)
    if len(content) < n:
        raise OSError(errno.EIO, "ends too early", str(path))
    return content


class _Folder:
    """The hooks' bodies."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.mappings: _Mappings = {}

    def size(self, _user: Any, name: bytes, size: Any) -> None:
        size[0] = self.path(name).stat().st_size

    def read(self, _user: Any, name: bytes, offset: int, buffer: int,
             n: int) -> None:
        _lib.write_at(buffer, _read_part(self.path(name), offset, n))

    def write(self, _user: Any, name: bytes, buffer: int, n: int) -> None:
        _replace(self.path(name), _lib.bytes_at(buffer, n))

    def remove(self, _user: Any, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()

    def sync(self, _user: Any) -> None:
        for mapping, _ in self.mappings.values():
            mapping.flush()
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def map_write(self, _user: Any, name: bytes, n: int, data: Any,
                  is_new: Any) -> None:
        mapping, made = _map(self.path(name), n)
        memory = np.frombuffer(mapping, np.uint8)
        address = memory.ctypes.data
        self.mappings[address] = mapping, memory
        data[0], is_new[0] = address, int(made)

    def unmap_write(self, _user: Any, address: int, _n: int) -> None:
        mapping, memory = self.mappings.pop(address)
        del memory  # mapping.close() wants nobody to look at it
        mapping.close()

    def advise(self, _user: Any, address: int, offset: int, n: int) -> None:
        mapping, _ = self.mappings[address]
        begin = offset - offset % mmap.PAGESIZE
        if hasattr(mapping, "madvise"):
            mapping.madvise(mmap.MADV_WILLNEED, begin, offset + n - begin)

    def path(self, name: bytes) -> pathlib.Path:
        # The library checks the alphabet; these would leave the folder.
        if name.startswith(b"."):
            raise ValueError(f"name: got {name.decode()!r}, want no dot first")
        return self.folder / name.decode()


def _hook(body: Callable[..., None]) -> Callable[..., int]:
    """A blob that is not there is an answer, other exceptions are errors."""
    def run(*arguments: Any) -> int:
        try:
            body(*arguments)
        except FileNotFoundError:
            return _err.NOT_FOUND
        return 0
    return _lib.keep_exceptions(run)


def folder_storage(folder: str | os.PathLike[str]) -> Any:
    """Return an fl_storage. Its hooks live as long as it does."""
    path = pathlib.Path(folder)
    path.mkdir(mode=0o700, exist_ok=True)
    bodies = _Folder(path.resolve())
    storage = _lib.Storage(struct_size=_lib.sizeof(_lib.Storage))
    fields: list[Any] = list(_lib.Storage._fields_)
    for name, kind in fields:
        if hasattr(bodies, name):
            setattr(storage, name, kind(_hook(getattr(bodies, name))))
    return storage
