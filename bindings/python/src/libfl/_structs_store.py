# SPDX-License-Identifier: Apache-2.0
"""The types of store.h: a part of _structs."""
from ctypes import CFUNCTYPE, POINTER, Structure, c_int32, c_size_t, c_uint32
from ctypes import c_void_p

_CountP = POINTER(c_size_t)
_LendFn = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, POINTER(c_void_p),
                    _CountP)
_PlainFn = CFUNCTYPE(c_int32, c_void_p)


class Store(Structure):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("user", c_void_p),
                ("put", CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t,
                                  c_void_p, c_size_t)),
                ("get", _LendFn),
                ("remove", CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t)),
                ("next", _LendFn), ("commit", _PlainFn),
                ("rollback", _PlainFn),
                ("error", CFUNCTYPE(c_void_p, c_void_p)),
                ("free", CFUNCTYPE(None, c_void_p))]


StorePointer = POINTER(Store)
