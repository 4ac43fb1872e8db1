# SPDX-License-Identifier: Apache-2.0
"""The types of channel.h: a part of _structs."""
from ctypes import POINTER, Structure, c_uint8, c_uint32

PUBLIC_KEY_BYTES = 32
SECRET_KEY_BYTES = 64


class ChannelOptions(Structure):
    _fields_ = [("struct_size", c_uint32), ("is_server", c_uint32),
                ("secret_key", POINTER(c_uint8)),
                ("server_key", POINTER(c_uint8)),
                ("needs_client_key", c_uint32), ("reserved", c_uint32)]
