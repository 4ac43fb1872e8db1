# SPDX-License-Identifier: Apache-2.0
"""Memory in huge pages (2 MiB), where the system gives them: rows of large
tables are all over memory, and finding the page of each takes its time. A
small library beside libfl has the hooks of a context."""
from __future__ import annotations

import functools
import os
import pathlib
from typing import Any

from . import _lib
from ._handle import Resource


def _candidates() -> list[pathlib.Path]:
    """Where the library may be: in the package, or in a build folder beside
    the library that is named."""
    name = "libfl-pages.so"
    found = [pathlib.Path(__file__).with_name(name)]
    named = os.environ.get("LIBFL_LIBRARY")
    if named:
        folder = pathlib.Path(named).resolve().parent
        found += [folder / name, folder / "adapters" / "host" / name]
    return found


@functools.lru_cache(maxsize=None)
def library() -> Any:
    """The library, or None where there is none."""
    for path in _candidates():
        if path.exists():
            return _lib.open_pages(path)
    return None


def address(name: str) -> int | None:
    """A hook, for fl_context_options."""
    return _lib.cast(getattr(library(), name), _lib.c_void_p).value


def new() -> Resource:
    """Pages for one context; they have to live as long as it does."""
    pages = library()
    if pages is None:
        raise RuntimeError("huge_pages: there is no libfl-pages.so beside "
                           "this libfl")
    handle = _lib.c_void_p()
    if pages.fl_pages_new(_lib.byref(handle)) != 0:
        raise MemoryError("huge_pages: out of memory")
    return Resource(handle, pages.fl_pages_free, ())
