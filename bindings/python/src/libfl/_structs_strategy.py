# SPDX-License-Identifier: Apache-2.0
"""The types of strategy.h for ctypes: see _structs."""
from __future__ import annotations

from ctypes import CFUNCTYPE, POINTER, c_double, c_float, c_uint32, c_uint64
from ctypes import c_void_p

from ._structs import F32P, F64P, Status, Struct, U64P, _opaque

Strategy = _opaque("fl_strategy")
Local = _opaque("fl_local")

StrategyReadFn = CFUNCTYPE(Status, c_void_p, c_uint32, c_uint64, c_uint64,
                           F32P, POINTER(F32P))


class StrategyRound(Struct):
    _fields_ = [("struct_size", c_uint32), ("count", c_uint32),
                ("samples", U64P), ("steps", U64P), ("losses", F64P),
                ("rows", POINTER(F32P)), ("control_rows", POINTER(F32P)),
                ("read", StrategyReadFn), ("read_control", StrategyReadFn),
                ("user", c_void_p)]


CombineFn = CFUNCTYPE(Status, c_void_p, POINTER(StrategyRound), F32P, c_uint64)
OptimiseFn = CFUNCTYPE(Status, c_void_p, F32P, F32P, F32P, c_uint64)
ScoreFn = CFUNCTYPE(Status, c_void_p, F32P, c_uint64, F64P)


class StrategyOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("rule", c_uint32),
                ("optimiser", c_uint32), ("is_uniform", c_uint32),
                ("rate", c_float), ("momentum", c_float), ("beta1", c_float),
                ("beta2", c_float), ("tau", c_float), ("v0", c_float),
                ("bias_correction", c_uint32), ("prox_mu", c_float),
                ("client_rate", c_float), ("client_momentum", c_float),
                ("fairness", c_float), ("trim", c_float),
                ("byzantine", c_uint32), ("passes", c_uint32),
                ("smoothing", c_float), ("clip", c_float),
                ("clip_adapts", c_uint32), ("clip_quantile", c_float),
                ("clip_rate", c_float), ("population", c_uint64),
                ("combine", CombineFn), ("optimise", OptimiseFn),
                ("score", ScoreFn), ("user", c_void_p),
                ("gate_tolerance", c_float), ("reserved", c_uint32)]


class StrategyReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("count", c_uint32),
                ("steps", c_uint64), ("clip", c_double),
                ("clipped", c_uint32), ("chosen", c_uint32),
                ("length", c_double), ("gate_loss", c_double)]
