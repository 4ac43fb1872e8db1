# SPDX-License-Identifier: Apache-2.0
"""Arrays on their way into and out of the library.

An array that is float32, C-contiguous and aligned already goes in as it is,
without a copy; others are converted once. What cannot be meant (strings,
complex numbers, wrong element counts) is refused here, with the parameter's
name.
"""
from __future__ import annotations

from typing import Any, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _lib

F32Array = npt.NDArray[np.float32]
BytesLike = Union[bytes, bytearray, memoryview, npt.NDArray[np.uint8]]


def plain(x: npt.ArrayLike) -> np.ndarray[Any, Any]:
    """Return anything array-like as an array. PyTorch's tensors may have a
    gradient and lie on a device."""
    detach = getattr(x, "detach", None)
    return np.asarray(x if detach is None else detach().cpu())


def _is_plain(array: np.ndarray[Any, Any], dtype: Any) -> bool:
    """Whether C can read it as it is: asked at every step, so before the
    checks that only conversions need."""
    flags = array.flags
    return array.dtype == dtype and flags.c_contiguous and flags.aligned


def f32(x: npt.ArrayLike, name: str, count: int | None = None) -> F32Array:
    """Return `x` as a C-contiguous aligned float32 array, itself when it is
    one."""
    array = plain(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: got dtype {array.dtype}, want real numbers")
    if not _is_plain(array, np.float32):
        # A number too large for float32 becomes infinite, which C complains
        # of.
        with np.errstate(over="ignore"):
            array = np.require(array, np.float32, ["C", "A"])
    if count is not None and array.size != count:
        raise ValueError(f"{name}: got {array.size} values "
                         f"{list(array.shape)}, want {count}")
    return array


def i32(x: npt.ArrayLike, name: str, shape: tuple[int, ...] | None = None
        ) -> npt.NDArray[np.int32]:
    """Return integers (labels, ids) as a C-contiguous aligned int32 array."""
    array = plain(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: got dtype {array.dtype}, want integers")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: got shape {list(array.shape)}, "
                         f"want {list(shape)}")
    if _is_plain(array, np.int32):
        return array
    if array.size and (array.max() > np.iinfo(np.int32).max
                       or array.min() < np.iinfo(np.int32).min):
        raise ValueError(f"{name}: a value does not fit int32")
    return np.require(array, np.int32, ["C", "A"])


def u64(x: npt.ArrayLike, name: str) -> npt.NDArray[np.uint64]:
    """Return ids as a C-contiguous aligned uint64 array, signed ones by their
    bits: PyTorch's are signed, and any id will do."""
    array = plain(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: got dtype {array.dtype}, want integers")
    wide = np.int64 if array.dtype.kind == "i" else np.uint64
    return np.require(array, wide, ["C", "A"]).view(np.uint64)


def output(out: F32Array | None, name: str, shape: Sequence[int]) -> F32Array:
    """Return memory to write into: the caller's if it fits, else new."""
    if out is None:
        return np.empty(tuple(shape), np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32:
        raise TypeError(f"{name}: got {getattr(out, 'dtype', type(out))}, "
                        f"want a float32 array")
    if not out.flags.carray:
        raise ValueError(f"{name}: want a C-contiguous aligned writable "
                         f"array")
    if out.size != int(np.prod(shape)):
        raise ValueError(f"{name}: got {out.size} values, "
                         f"want {int(np.prod(shape))}")
    return out


def f32_pointer(array: F32Array) -> Any:
    return array.ctypes.data_as(_lib.F32P)


def i32_pointer(array: npt.NDArray[np.int32]) -> Any:
    return array.ctypes.data_as(_lib.I32P)


def u32_pointer(array: npt.NDArray[np.uint32]) -> Any:
    return array.ctypes.data_as(_lib.U32P)


def u64_pointer(array: npt.NDArray[np.uint64]) -> Any:
    return array.ctypes.data_as(_lib.U64P)


def data(value: BytesLike, name: str) -> tuple[Any, int]:
    """Return (pointer, size) of bytes, without a copy. The pointer keeps the
    memory alive."""
    try:
        view = memoryview(value).cast("B")  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: got {type(value).__name__}, want "
                        f"contiguous bytes") from None
    if view.nbytes == 0:
        return None, 0
    array = np.frombuffer(view, np.uint8)
    return array.ctypes.data_as(_lib.U8P), array.size


class _Memory:
    """Memory of the library that numpy may look at; keeps its owner."""

    def __init__(self, address: int, count: int, owner: object) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": (count,),
            "typestr": np.dtype(np.float32).str,
            "data": (address, False)}
        self._owner = owner


def view(pointer: Any, count: int, owner: object) -> F32Array:
    """Return float32 memory of the library as an array, without a copy. The
    array keeps `owner` alive, and so the memory."""
    if count == 0:
        return np.empty(0, np.float32)
    memory = _Memory(_lib.address(pointer), count, owner)
    return np.asarray(memory)


def copied(pointer: Any, count: int) -> F32Array:
    """Return a copy of float32 memory that is about to go away."""
    return view(pointer, count, None).copy()


def ids(value: npt.ArrayLike, count: int | None = None
        ) -> npt.NDArray[np.uint64]:
    """Return names of samples, `count` of them."""
    names = np.atleast_1d(plain(value))
    if names.ndim != 1:
        raise ValueError(f"ids: got shape {list(names.shape)}, want one row")
    if names.dtype.kind not in "iu" and names.size:
        raise TypeError(f"ids: got dtype {names.dtype}, want integers")
    if names.size and names.min() < 0:
        raise ValueError(f"ids: got {names.min()}, want >= 0")
    if count is not None and names.size != count:
        raise ValueError(f"ids: got {names.size}, want {count}, one a sample")
    return np.require(names, np.uint64, ["C", "A"])
