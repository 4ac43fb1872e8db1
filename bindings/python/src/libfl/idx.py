# SPDX-License-Identifier: Apache-2.0
"""Data sets in IDX files (the MNIST family): include/fl/idx.h in numpy."""
from __future__ import annotations

import gzip
import math
import os
import pathlib
from typing import Union

import numpy as np
import numpy.typing as npt

from . import _lib

_TYPES = {0x08: "unsigned bytes", 0x09: "signed bytes",
          0x0b: "16-bit integers", 0x0c: "32-bit integers",
          0x0d: "float32", 0x0e: "float64"}


def read_idx(path: Union[str, os.PathLike[str]]) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or plain (by its first
    bytes, not by its name), as a read-only array of 1..8 dimensions. Pixels
    and labels go into Model.fit as they are. ValueError says what is wrong
    with a file; OSError and EOFError, the system's and gzip's."""
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if (len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES
            or data[3] == 0):
        raise ValueError(f"{path}: no IDX file")
    if data[2] != 0x08:
        raise ValueError(f"{path}: got {_TYPES[data[2]]}, "
                         f"want unsigned bytes")
    if data[3] > _lib.MAX_DIMS:
        raise ValueError(f"{path}: got {data[3]} dimensions, "
                         f"want {_lib.MAX_DIMS} at most")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError(f"{path}: got {len(data)} bytes, "
                         f"want {header} or more")
    shape = [int.from_bytes(data[at:at + 4], "big")
             for at in range(4, header, 4)]
    if 0 in shape or len(data) != header + math.prod(shape):
        raise ValueError(f"{path}: got {len(data)} bytes, want {header} and "
                         f"those of shape {shape}, without a 0")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
