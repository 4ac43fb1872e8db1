# SPDX-License-Identifier: Apache-2.0
"""Context: the host's hooks (log, memory bound) and the cancel flag."""
from __future__ import annotations

import logging
import os
from typing import Any

from . import _lib, _pages, _storage
from ._handle import Handle
from ._lib import byref, c_uint64, lib, pointer

# FL_LOG_* and the levels of the logging module.
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO,
           4: logging.DEBUG}


def _least_severe(level: int) -> int:
    """Return the FL_LOG_* level that corresponds to a logger's level."""
    return max([number for number, value in _LEVELS.items()
                if value >= level], default=1)


class Context(Handle):
    """Where models, compressors, clients and servers get memory from and
    write their log to.

    `logger`: lines go to this logger (default: logging.getLogger("libfl")),
    from its effective level on. `memory_cap`: bound in bytes for everything
    made with this context together; 0 = none. `storage`: folder for what is
    kept in files, made when missing. `huge_pages`: blocks of 4 KiB and above
    lie in pages of 2 MiB, where the system gives them; the process holds whole
    pages.
    """

    def __init__(self, *, logger: logging.Logger | None = None,
                 memory_cap: int = 0,
                 storage: str | os.PathLike[str] | None = None,
                 huge_pages: bool = False) -> None:
        sink = logger or logging.getLogger("libfl")

        # Refers to the logger only: the hook lives as long as any handle of
        # this context, and would otherwise keep the context open.
        def log(_user: Any, level: int, line: bytes) -> None:
            sink.log(_LEVELS.get(level, logging.DEBUG), "%s",
                     _lib.text(line))

        hook = _lib.LogFn(_lib.keep_exceptions(log))
        options = _lib.init(_lib.ContextOptions)
        options.log_level = _least_severe(sink.getEffectiveLevel())
        options.memory_cap = memory_cap
        options.log = hook
        pages = None
        if huge_pages:
            pages = _pages.new()
            options.user = pages.pointer
            options.alloc = _pages.address("fl_pages_alloc")
            options.dealloc = _pages.address("fl_pages_dealloc")
        blobs = None
        if storage is not None:
            blobs = _storage.folder_storage(storage)
            options.storage = pointer(blobs)
        self._own(_lib.new(_lib.Context, lib.fl_context_new, byref(options)),
                  lib.fl_context_free, hook, blobs, pages)

    @property
    def memory(self) -> int:
        """Bytes that handles of this context hold now."""
        return self._memory()[0]

    @property
    def memory_peak(self) -> int:
        """The most bytes they ever held."""
        return self._memory()[1]

    def _memory(self) -> tuple[int, int]:
        now, peak = c_uint64(), c_uint64()
        lib.fl_context_get_memory(self._handle, byref(now), byref(peak))
        return now.value, peak.value


class Cancel(Handle):
    """A flag that stops a long call (Model.fit) from another thread."""

    def __init__(self) -> None:
        self._own(_lib.new(_lib.Cancel, lib.fl_cancel_new),
                  lib.fl_cancel_free)

    def request(self) -> None:
        """Raise the flag. Any thread may do so."""
        lib.fl_cancel_request(self._handle)

    def reset(self) -> None:
        """Lower the flag, to use it again."""
        lib.fl_cancel_reset(self._handle)

    @property
    def is_requested(self) -> bool:
        return bool(lib.fl_cancel_is_requested(self._handle))


def lease_of(context: Context | None) -> Any:
    """Return (pointer, owner) of a context parameter; (NULL, None) stands
    for the defaults."""
    if context is None:
        return None, None
    lease = context._lease()
    return lease.pointer, lease
