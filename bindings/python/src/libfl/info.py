# SPDX-License-Identifier: Apache-2.0
"""Facts about the library that is loaded."""
from __future__ import annotations

import enum

from . import _lib
from ._lib import lib


class Feature(enum.IntEnum):
    """Parts that a build may lack."""

    BLAS = 1
    MODEL = 2
    THC = 3
    CLIENT = 4
    SERVER = 5
    FREEZE = 6
    EMBEDDING = 7


def version() -> str:
    """Return the shared library's version."""
    return _lib.text(lib.fl_version_string())


def build_info() -> str:
    """Return one line: version, compiler, instruction set, BLAS."""
    return _lib.text(lib.fl_build_info())


def has_feature(feature: Feature) -> bool:
    """Tell whether the shared library was built with a feature."""
    return bool(lib.fl_feature(int(feature)))
