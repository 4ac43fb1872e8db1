# SPDX-License-Identifier: Apache-2.0
"""The types of selection.h for ctypes: see _structs."""
from __future__ import annotations

from ctypes import CFUNCTYPE, POINTER, c_char_p, c_float, c_uint32, c_uint64
from ctypes import c_void_p

from ._structs import F32P, Status, Struct, U32P, U64P


class SelectionRound(Struct):
    _fields_ = [("struct_size", c_uint32), ("count", c_uint32),
                ("wanted", c_uint32), ("attempt", c_uint32),
                ("round", c_uint64), ("ids", POINTER(c_char_p)),
                ("samples", U64P), ("losses", F32P), ("seconds", F32P),
                ("rounds", U32P)]


ChooseFn = CFUNCTYPE(Status, c_void_p, POINTER(SelectionRound), U32P)


class SelectionOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("rule", c_uint32),
                ("candidates", c_uint32), ("explore", c_float),
                ("explore_decay", c_float), ("explore_least", c_float),
                ("clip_quantile", c_float), ("pace", c_float),
                ("pacer", c_uint32), ("pace_step", c_float),
                ("choose", ChooseFn), ("user", c_void_p)]
