# SPDX-License-Identifier: Apache-2.0
"""One embedding store for many devices: each has the rows of its own ids,
trains them in a store of its own, and sends what has changed."""
from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from . import _args, _lib, _np, _state
from ._handle import Handle
from ._lib import byref, lib
from ._np import BytesLike
from .context import Context, lease_of
from .embedding import (SECRET_BYTES, EmbeddingPrecision, EmbeddingStore,
                        EmbeddingTable, whole64)


@dataclasses.dataclass(frozen=True)
class SliceReport:
    """What a round came to: updates; different ids, and of them those that
    fewer than `min_clients` had touched; values that came, and those beyond
    the grid, as clients say; chunks that the adjust evicted and grew."""

    clients: int
    ids: int
    dropped: int
    clamped: int
    values: int
    adjusted: int


@dataclasses.dataclass(frozen=True)
class SliceStatus:
    """Where a device is: `rows` that the server had of its `ids`, of them
    `no_room` that do not fit the device's budget; ids `touched` by training;
    values `clamped` in the last update."""

    is_ready: bool
    layout: int
    ids: int
    decoys: int
    rows: int
    no_room: int
    touched: int
    clamped: int


def _fields_of(kind: Any, found: Any) -> list[int]:
    return [getattr(found, field.name) for field in dataclasses.fields(kind)]


def _appended(function: Any, *arguments: Any) -> bytes:
    """Call a function that ends in an fl_buffer, and return what it put
    there."""
    buffer = _lib.new(_lib.Buffer, lib.fl_buffer_new, None)
    try:
        function(*arguments, buffer)
        return _lib.take_bytes(lib.fl_buffer_get, buffer)
    finally:
        lib.fl_buffer_free(buffer)


class SliceServer(Handle):
    """Serves a store's tables; give it to `Job.attach_slices`, or carry the
    bytes yourself.

    `min_clients`: ids that fewer have touched in a round are dropped.
    `first_delta`, `first_utility`: grids of the first round; later ones
    follow what came. `rate`: of the store's optimiser; None: 1 with sgd, so
    that rows become the mean of those that touched them, .05 with
    row_adagrad. `precision` of the rows that go down: f32 or bf16.
    `max_ids`: of one client; `max_sum_ids`: of all of a round.
    """

    def __init__(self, store: EmbeddingStore, *, min_clients: int = 1,
                 first_delta: float | None = None,
                 first_utility: float | None = None,
                 rate: float | None = None,
                 precision: str | EmbeddingPrecision = "f32", seed: int = 0,
                 max_ids: int | None = None, max_sum_ids: int | None = None,
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.SliceServerOptions)
        options.min_clients = min_clients
        options.precision = _args.choice(EmbeddingPrecision, precision,
                                         "precision")
        options.seed = seed
        for name, value in (("first_delta", first_delta),
                            ("first_utility", first_utility), ("rate", rate),
                            ("max_ids", max_ids),
                            ("max_sum_ids", max_sum_ids)):
            if value is not None:
                setattr(options, name, value)
        pointer, lease = lease_of(context)
        self.store = store
        self._own(_lib.new(_lib.SliceServer, lib.fl_slice_server_new, pointer,
                           store._handle, byref(options)),
                  lib.fl_slice_server_free, lease, store._lease())

    @property
    def layout(self) -> int:
        """How many rounds were stepped."""
        layout: int = lib.fl_slice_server_layout(self._handle)
        return layout

    def plan(self) -> bytes:
        """What clients of this round have to know."""
        return _lib.copy_bytes(lib.fl_slice_server_copy_plan, self._handle)

    def answer(self, request: BytesLike) -> bytes:
        """Return the rows that a request asks for."""
        return _appended(lib.fl_slice_server_answer, self._handle,
                         *_np.data(request, "request"))

    def add(self, update: BytesLike) -> None:
        """Count one client's update: all of it, or an error and nothing."""
        lib.fl_slice_server_add(self._handle, *_np.data(update, "update"))

    def drop(self) -> None:
        """Forget what was added: the round was given up."""
        lib.fl_slice_server_drop(self._handle)

    def step(self) -> SliceReport:
        """End the round: rows take their step, the store is adjusted."""
        report = _lib.init(_lib.SliceReport)
        lib.fl_slice_server_step(self._handle, byref(report))
        return SliceReport(*_fields_of(SliceReport, report))

    @property
    def report(self) -> SliceReport:
        """Of the last step."""
        report = _lib.init(_lib.SliceReport)
        lib.fl_slice_server_get_report(self._handle, byref(report))
        return SliceReport(*_fields_of(SliceReport, report))

    def save(self) -> bytes:
        """Return what was added, layout and grids; the store is saved by
        itself."""
        return _state.save(lib.fl_slice_server_save, self._handle, None)

    def load(self, state: bytes) -> None:
        """Go on from there. StaleError: the store is of another time."""
        _state.load(lib.fl_slice_server_load, self._handle, state)


class SliceClient(Handle):
    """Keeps slices in a device's own `store`, whose tables have the shapes of
    the server's; give it to `Client.attach_slices`, or carry the bytes
    yourself.

    `has_decoys`: ask for made-up ids, too, up to a power of two; they are
    0..decoy_range-1 (0: any), chosen by `secret`, 16 bytes to be kept. With
    the server's seed, ids that nobody has trained begin alike on both sides.
    """

    def __init__(self, store: EmbeddingStore, *, has_decoys: bool = False,
                 decoy_range: int = 0, secret: BytesLike | None = None,
                 max_ids: int | None = None,
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.SliceClientOptions)
        options.has_decoys = int(has_decoys)
        options.decoy_range = decoy_range
        if secret is not None:
            options.secret, n = _np.data(secret, "secret")
            if n != SECRET_BYTES:
                raise ValueError(f"secret: got {n} bytes, "
                                 f"want {SECRET_BYTES}")
        if max_ids is not None:
            options.max_ids = max_ids
        pointer, lease = lease_of(context)
        self.store = store
        self._own(_lib.new(_lib.SliceClient, lib.fl_slice_client_new, pointer,
                           store._handle, byref(options)),
                  lib.fl_slice_client_free, lease, store._lease())

    def set_ids(self, table: EmbeddingTable, ids: npt.ArrayLike) -> None:
        """Say which ids of a table this device has, from the next round
        on."""
        values = whole64(ids, "ids")
        lib.fl_slice_client_set_ids(self._handle, table.index,
                                    _np.u64_pointer(values), values.size)

    def begin(self, plan: BytesLike) -> None:
        """A round begins."""
        lib.fl_slice_client_begin(self._handle, *_np.data(plan, "plan"))

    def request(self) -> bytes:
        """Return the next request. EmptyError: all rows are there."""
        return _appended(lib.fl_slice_client_request, self._handle)

    def take(self, answer: BytesLike) -> None:
        """Take rows into the store."""
        lib.fl_slice_client_take(self._handle, *_np.data(answer, "answer"))

    def update(self, seed: int) -> bytes:
        """Return what training has changed; the round is over then. `seed`
        is this client's of this round."""
        return _appended(lib.fl_slice_client_update, self._handle,
                         _args.u64(seed, "seed"))

    def threshold(self, table: EmbeddingTable) -> float:
        """Below which a chunk was not worth its bytes to the server."""
        value: float = lib.fl_slice_client_threshold(self._handle, table.index)
        return value

    @property
    def status(self) -> SliceStatus:
        found = _lib.init(_lib.SliceClientStatus)
        lib.fl_slice_client_get_status(self._handle, byref(found))
        values = _fields_of(SliceStatus, found)
        return SliceStatus(bool(values[0]), *values[1:])
