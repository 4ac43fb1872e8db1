# SPDX-License-Identifier: Apache-2.0
"""The structs of embedding.h. A part of _lib, as _structs is."""
from __future__ import annotations

from ctypes import c_float, c_uint32, c_uint64

from ._structs import F32P, Struct, U32P, U64P, U8P


class EmbeddingOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("optimiser", c_uint32),
                ("byte_budget", c_uint64), ("seed", c_uint64),
                ("secret", U8P), ("epsilon", c_float),
                ("initial_square", c_float), ("decay", c_float),
                ("hysteresis", c_float), ("sample_every", c_uint32),
                ("is_global", c_uint32), ("tombstones", c_uint64)]


class EmbeddingTableOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("dim", c_uint32),
                ("chunks", c_uint32), ("precision", c_uint32),
                ("sketch_counters", c_uint64), ("prune_from", c_uint64),
                ("share", c_float), ("init_scale", c_float),
                ("admit_after", c_uint32), ("keep_for", c_uint32)]


class EmbeddingBags(Struct):
    _fields_ = [("struct_size", c_uint32), ("mode", c_uint32),
                ("ids", U64P), ("n_ids", c_uint64), ("offsets", U64P),
                ("n_bags", c_uint64), ("weights", F32P)]


class EmbeddingReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("evicted", c_uint64), ("grown", c_uint64),
                ("rows_lost", c_uint64), ("rows_gained", c_uint64),
                ("bytes_moved", c_uint64), ("blocks_returned", c_uint64)]


class EmbeddingStatistics(Struct):
    _fields_ = [("struct_size", c_uint32), ("n_tables", c_uint32),
                *((name, c_uint64) for name in (
                    "byte_budget", "bytes_used", "bytes_values",
                    "bytes_squares", "bytes_entries", "bytes_sketch",
                    "bytes_free", "bytes_fixed", "bytes_scratch", "rows",
                    "chunks")),
                ("rows_by_chunks", c_uint64 * 4),
                *((name, c_uint64) for name in (
                    "steps", "adjusts", "evicted", "grown", "rows_lost",
                    "rows_gained", "ids_asked", "ids_hit")),
                ("dim", c_uint32), ("reserved", c_uint32)]


class EmbeddingAttachOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("table", c_uint32),
                ("tables", U32P), ("n_tables", c_uint32), ("rate", c_float)]
