# SPDX-License-Identifier: Apache-2.0
"""Channel: bytes sealed between a client and the server whose key it has
pinned, for transports without TLS; and the keys of both."""
from __future__ import annotations

import dataclasses
from typing import Any

from . import _lib, _np
from ._err import NotFoundError
from ._handle import Handle
from ._lib import byref, c_uint8, lib
from ._np import BytesLike
from .context import Context, lease_of


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key: `secret` is to be kept, `public` to be told."""

    secret: bytes = dataclasses.field(repr=False)
    public: bytes

    @staticmethod
    def generate(context: Context | None = None) -> KeyPair:
        """Draw a new one."""
        pointer, _lease = lease_of(context)
        secret = (c_uint8 * _lib.SECRET_KEY_BYTES)()
        public = (c_uint8 * _lib.PUBLIC_KEY_BYTES)()
        lib.fl_key_generate(pointer, secret, public)
        return KeyPair(bytes(secret), bytes(public))


def _key(value: BytesLike, size: int, name: str) -> Any:
    data = bytes(value)
    if len(data) != size:
        raise ValueError(f"{name}: got {len(data)} bytes, want {size}")
    return (c_uint8 * size).from_buffer_copy(data)


class Channel(Handle):
    """One end. A client gives the server's public key, and its own secret key
    if it has one; a server (`is_server`) its secret key. What is wrong with
    the other end's bytes is a FormatError, after which nothing works any
    more: close the connection."""

    def __init__(self, *, server_key: BytesLike | None = None,
                 secret_key: BytesLike | None = None,
                 is_server: bool = False, needs_client_key: bool = False,
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.ChannelOptions)
        options.is_server = int(is_server)
        options.needs_client_key = int(needs_client_key)
        if secret_key is not None:
            options.secret_key = _key(secret_key, _lib.SECRET_KEY_BYTES,
                                      "secret_key")
        if server_key is not None:
            options.server_key = _key(server_key, _lib.PUBLIC_KEY_BYTES,
                                      "server_key")
        pointer, lease = lease_of(context)
        self._own(_lib.new(_lib.Channel, lib.fl_channel_new, pointer,
                           byref(options)), lib.fl_channel_free, lease)

    def recv(self, data: BytesLike) -> None:
        """Take bytes from the transport, in any cut."""
        lib.fl_channel_recv(self._handle, *_np.data(data, "data"))

    def read(self) -> bytes:
        """What the other end wrote; b"" = nothing."""
        return _lib.take_bytes(lib.fl_channel_read, self._handle)

    def write(self, data: BytesLike) -> None:
        """Have bytes sealed and sent; they wait until the channel is open."""
        lib.fl_channel_write(self._handle, *_np.data(data, "data"))

    def end(self) -> None:
        """Say that no more comes from this end."""
        lib.fl_channel_close(self._handle)

    def send(self) -> bytes:
        """What is to be sent; b"" = nothing."""
        return _lib.take_bytes(lib.fl_channel_send, self._handle)

    @property
    def is_open(self) -> bool:
        """The other end is known, and bytes flow."""
        return bool(lib.fl_channel_is_open(self._handle))

    @property
    def has_ended(self) -> bool:
        """The other end has said that no more comes."""
        return bool(lib.fl_channel_has_ended(self._handle))

    @property
    def peer_key(self) -> bytes | None:
        """The other end's public key; None: a client without one."""
        key = (c_uint8 * _lib.PUBLIC_KEY_BYTES)()
        try:
            lib.fl_channel_copy_peer_key(self._handle, key)
        except NotFoundError:
            return None
        return bytes(key)
