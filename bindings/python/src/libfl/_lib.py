# SPDX-License-Identifier: Apache-2.0
"""Everything that touches ctypes: the library, loaded and checked (structs are
in _structs, signatures in _signatures).

The declarations mirror include/fl/*.h one to one; tests/python/test_abi.py
compares them with what a C compiler says about the headers. Every function
has argtypes and restype, and every function that returns a status goes
through the one `_check`, which raises what failed. Exceptions of Python
callbacks are kept while C code is on the stack and raised when it returns.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import pathlib
import sys
import threading
from ctypes import CDLL, POINTER, Structure, c_char_p
# What the other modules take from here is named twice, for type checkers.
from ctypes import byref as byref
from ctypes import c_uint8 as c_uint8
from ctypes import c_void_p as c_void_p
from ctypes import cast as cast
from ctypes import c_double as c_double
from ctypes import c_float as c_float
from ctypes import c_int32 as c_int32
from ctypes import c_size_t as c_size_t
from ctypes import c_uint32 as c_uint32
from ctypes import c_uint64 as c_uint64
from ctypes import pointer as pointer
from ctypes import sizeof as sizeof
from typing import IO, Any, Callable, TypeVar

from . import _err
from ._signatures import CHECKED, INITIALISED, PLAIN
from ._structs import *
from ._structs_embedding import *
from ._structs_selection import *
from ._structs_slices import *
from ._structs_strategy import *

# Major and minor version of the headers that this file mirrors. Before 1.0
# the minor version may change the ABI, so both have to agree.
ABI = (0, 1)


# ---- loading ---------------------------------------------------------------

_pending = threading.local()


def _check(status: int, function: Any, arguments: Any) -> None:
    """Raise what a callback raised during the call, or the call's error."""
    del arguments  # tracebacks keep frames, and frames would keep handles
    raised = getattr(_pending, "raised", None)
    if raised is not None:
        _pending.raised = None
        raise raised
    if status != 0:
        detail = lib.fl_last_error().decode("utf-8", "replace")
        raise _err.from_status(status, function.__name__, detail)


def _candidates() -> list[str]:
    """Where the library may be, best first."""
    named = os.environ.get("LIBFL_LIBRARY")
    if named:
        return [named]
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    packaged = pathlib.Path(__file__).with_name(f"libfl.{suffix}")
    if packaged.exists():
        return [str(packaged)]
    found = ctypes.util.find_library("fl")
    return ["libfl.so.%d.%d" % ABI] + ([found] if found else [])


def _open() -> CDLL:
    errors = []
    for path in _candidates():
        try:
            return CDLL(path)
        except OSError as error:
            errors.append(str(error))
    raise ImportError("libfl: cannot load the shared library: "
                      + "; ".join(errors)
                      + " (LIBFL_LIBRARY may name its path)")


def _declare(library: CDLL) -> None:
    try:
        for name, argtypes in CHECKED.items():
            function = getattr(library, name)
            function.argtypes = argtypes
            function.restype = Status
            function.errcheck = _check
        for name, (restype, argtypes) in PLAIN.items():
            function = getattr(library, name)
            function.argtypes = argtypes
            function.restype = restype
    except AttributeError as error:
        raise ImportError(f"libfl: the shared library lacks a function: "
                          f"{error}") from None


def _verify(library: CDLL) -> None:
    """Refuse a library of another ABI before anything is called with it."""
    try:
        library.fl_version_number.restype = c_uint32
        number = library.fl_version_number()
    except AttributeError:
        raise ImportError(f"libfl: {library._name} is no libfl") from None
    have = (number // 1000000, number // 1000 % 1000)
    if have != ABI:
        raise ImportError("libfl: the shared library %s is version %d.%d, "
                          "want %d.%d" % (library._name, *have, *ABI))


def _verify_structs() -> None:
    for kind, name in INITIALISED.items():
        if init(kind).struct_size != sizeof(kind):
            raise ImportError(f"libfl: {name} does not take "
                              f"{sizeof(kind)} bytes")


def open_pages(path: pathlib.Path) -> CDLL:
    """libfl-pages: hooks of memory in huge pages (_pages)."""
    pages = CDLL(str(path))
    pages.fl_pages_new.argtypes = [POINTER(c_void_p)]
    pages.fl_pages_new.restype = c_int32
    pages.fl_pages_free.argtypes = [c_void_p]
    pages.fl_pages_free.restype = None
    pages.fl_pages_bytes.argtypes = [c_void_p]
    pages.fl_pages_bytes.restype = c_size_t
    return pages


# ---- what the other modules share ------------------------------------------

_S = TypeVar("_S", bound=Structure)


def init(kind: type[_S]) -> _S:
    """Make a struct that holds the library's defaults."""
    value = kind()
    getattr(lib, INITIALISED[kind])(byref(value), sizeof(kind))
    return value


def sized(kind: type[_S]) -> _S:
    """Make a struct of zeros that says how long it is."""
    value = kind()
    value.struct_size = sizeof(kind)
    return value


def new(kind: Any, function: Any, *arguments: Any) -> Any:
    """Call a constructor whose first parameter receives the handle."""
    out = kind()
    try:
        function(byref(out), *arguments)
    except BaseException:
        if out:  # it was made, and then a log callback raised
            getattr(lib, f"{kind._type_.__name__}_free")(out)
        raise
    return out


def copy_bytes(function: Any, *arguments: Any) -> bytes:
    """Call a function that ends in (buffer, capacity, &needed)."""
    needed = c_size_t()
    function(*arguments, None, 0, byref(needed))
    buffer = (c_uint8 * needed.value)()
    function(*arguments, buffer, needed.value, byref(needed))
    return bytes(buffer)[:needed.value]


def take_bytes(function: Any, *arguments: Any) -> bytes:
    """Call a function that ends in (&data, &n), and copy what it lends."""
    data, n = U8P(), c_size_t()
    function(*arguments, byref(data), byref(n))
    return copied(data, n.value)


def copied(data: Any, n: int) -> bytes:
    """Copy n bytes that are lent; NULL when there are none."""
    return ctypes.string_at(data, n) if n else b""


def keep_exceptions(function: Callable[..., int | None]
                    ) -> Callable[..., int]:
    """Wrap the body of a callback, which returns a status or None: what it
    raises is raised again by the library call that it runs under; C only
    sees FL_E_CALLBACK. The first exception wins. Callbacks run on the thread
    that made the call."""
    def run(*arguments: Any) -> int:
        try:
            return function(*arguments) or 0
        except BaseException as error:
            if getattr(_pending, "raised", None) is None:
                _pending.raised = error
            return callback_failed()
    return run


# A NULL where a gradient function could be.
NO_GRADIENT_FN: Any = cast(c_void_p(), GradientFn)


def callback_failed() -> int:
    """Return FL_E_CALLBACK: the host's callback did not do it."""
    return _err.CALLBACK


def bytes_at(address: int, n: int) -> bytes:
    """Copy C's memory."""
    return ctypes.string_at(address, n)


def write_at(address: int, data: bytes) -> None:
    """Write to C's memory."""
    ctypes.memmove(address, data, len(data))


def writer_of(file: IO[bytes]) -> Writer:
    """Return an fl_writer that ends in a file object."""
    def write(_user: Any, data: int, n: int) -> None:
        left = memoryview(ctypes.string_at(data, n))
        while left:
            # Raw files may take less than they are given.
            done = file.write(left)
            if not done:
                raise OSError("write: the file took nothing")
            left = left[done:]

    return Writer(WriteFn(keep_exceptions(write)), None)


def reader_of(file: IO[bytes]) -> Reader:
    """Return an fl_reader that begins where a file object stands."""
    def read(_user: Any, into: int, n: int, got: Any) -> None:
        data = memoryview(file.read(n)).cast("B")
        if len(data) > n:
            raise OSError(f"read: the file gave {len(data)} bytes, "
                          f"want at most {n}")
        ctypes.memmove(into, data.tobytes(), len(data))
        got[0] = len(data)

    return Reader(ReadFn(keep_exceptions(read)), None)


def address(value: Any) -> int:
    """Return the address that a pointer holds."""
    return cast(value, c_void_p).value or 0


def address_of(data: bytes) -> int:
    """Return the address of an object's bytes, which it has to outlive."""
    return address(c_char_p(data))


def text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


lib = _open()
_verify(lib)
_declare(lib)
_err.load([(lib.fl_status_at(i),
            text(lib.fl_status_name(lib.fl_status_at(i))),
            text(lib.fl_status_text(lib.fl_status_at(i))))
           for i in range(lib.fl_status_count())])
_verify_structs()
