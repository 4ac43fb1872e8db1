# SPDX-License-Identifier: Apache-2.0
"""The handles and structs of slices.h. A part of _lib, as _structs is."""
from __future__ import annotations

from ctypes import c_float, c_uint32, c_uint64

from ._structs import U8P, Struct, _opaque

SliceServer = _opaque("fl_slice_server")
SliceClient = _opaque("fl_slice_client")


class SliceServerOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("min_clients", c_uint32),
                ("first_delta", c_float), ("first_utility", c_float),
                ("rate", c_float), ("precision", c_uint32),
                ("seed", c_uint64), ("max_ids", c_uint64),
                ("max_sum_ids", c_uint64)]


class SliceReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("clients", c_uint32),
                *((name, c_uint64) for name in (
                    "ids", "dropped", "clamped", "values", "adjusted"))]


class SliceClientOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("has_decoys", c_uint32),
                ("decoy_range", c_uint64), ("secret", U8P),
                ("max_ids", c_uint64)]


class SliceClientStatus(Struct):
    _fields_ = [("struct_size", c_uint32), ("is_ready", c_uint32),
                *((name, c_uint64) for name in (
                    "layout", "ids", "decoys", "rows", "no_room", "touched",
                    "clamped"))]
