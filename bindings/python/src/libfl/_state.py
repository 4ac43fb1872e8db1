# SPDX-License-Identifier: Apache-2.0
"""States of handles as bytes: save, restore and load in memory."""
from __future__ import annotations

from typing import Any

from . import _lib
from ._lib import byref, lib


def save(function: Any, handle: Any, context: Any) -> bytes:
    """Call a _save function with a writer that ends in memory."""
    buffer = _lib.new(_lib.Buffer, lib.fl_buffer_new, context)
    try:
        writer = _lib.Writer()
        lib.fl_buffer_as_writer(buffer, byref(writer))
        function(handle, byref(writer))
        return _lib.take_bytes(lib.fl_buffer_get, buffer)
    finally:
        lib.fl_buffer_free(buffer)


def restore(kind: Any, function: Any, owner: Any, options: Any,
            state: bytes) -> Any:
    """Call a _restore function with a reader over bytes. `owner` is its
    second argument: a context, or the compressor."""
    context = owner if isinstance(owner, _lib.Context) else None
    buffer = _lib.new(_lib.Buffer, lib.fl_buffer_new, context)
    try:
        lib.fl_buffer_append(buffer, state, len(state))
        reader = _lib.Reader()
        lib.fl_buffer_as_reader(buffer, byref(reader))
        return _lib.new(kind, function, owner, byref(options),
                        byref(reader))
    finally:
        lib.fl_buffer_free(buffer)


def load(function: Any, handle: Any, state: bytes) -> None:
    """Call a _load function, of a handle that is there, with a reader over
    bytes."""
    buffer = _lib.new(_lib.Buffer, lib.fl_buffer_new, None)
    try:
        lib.fl_buffer_append(buffer, state, len(state))
        reader = _lib.Reader()
        lib.fl_buffer_as_reader(buffer, byref(reader))
        function(handle, byref(reader))
    finally:
        lib.fl_buffer_free(buffer)
