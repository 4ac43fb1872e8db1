# SPDX-License-Identifier: Apache-2.0
"""Error feedback: what one encoding loses comes with the next one."""
from __future__ import annotations

import enum
from typing import Any, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _lib, _np, _state
from ._handle import Handle
from ._lib import byref, c_size_t, lib
from ._np import F32Array
from .compress import Compressor, EncodeReport, Scale


class FeedbackPhase(enum.IntEnum):
    """Where the round of a Feedback stands: what it has done last."""

    IDLE = 0
    MEASURED = 1
    ENCODED = 2


class Feedback(Handle):
    """What the encodings of one worker have lost so far.

    A round: `measure` and `encode` here in place of the compressor's, and
    `settle` when it is known whether the update was counted. `decay`: what
    part of an update that was not counted is sent with the next one.
    `state` is what an earlier `save` returned.
    """

    def __init__(self, compressor: Compressor, *, decay: float | None = None,
                 state: bytes | None = None) -> None:
        self._dim = compressor.dim
        self._norm_count = compressor.norm_count
        self._max_update_size = compressor.max_update_size
        lease = compressor._lease()
        options = _lib.init(_lib.FeedbackOptions)
        if decay is not None:
            options.decay = decay
        if state is None:
            feedback = _lib.new(_lib.Feedback, lib.fl_feedback_new,
                                lease.pointer, byref(options))
        else:
            feedback = _state.restore(_lib.Feedback, lib.fl_feedback_restore,
                                      lease.pointer, options,
                                      bytes(memoryview(state)))
        self._own(feedback, lib.fl_feedback_free, lease)

    @property
    def phase(self) -> FeedbackPhase:
        return FeedbackPhase(lib.fl_feedback_phase(self._handle))

    @property
    def memory(self) -> F32Array:
        """What was lost before, or in a round the corrected update; a
        copy."""
        memory = np.empty(self._dim, np.float32)
        lib.fl_feedback_copy_memory(self._handle, _np.f32_pointer(memory),
                                    memory.size)
        return memory

    @property
    def norms(self) -> F32Array:
        """The norms that `measure` has returned, measured again."""
        norms = np.empty(self._norm_count, np.float32)
        lib.fl_feedback_copy_norms(self._handle, _np.f32_pointer(norms),
                                   norms.size)
        return norms

    def measure(self, x: npt.ArrayLike, scale: Scale | None = None, *,
                samples: int = 1) -> F32Array:
        """Correct the weighted update by what was lost before and return the
        norm of every block. On any error nothing has changed."""
        array = _np.f32(x, "x", self._dim)
        norms = np.empty(self._norm_count, np.float32)
        lib.fl_feedback_measure(
            self._handle, byref((scale or Scale())._struct()),
            _args.u64(samples, "samples"), _np.f32_pointer(array), array.size,
            _np.f32_pointer(norms), norms.size)
        return norms

    def encode(self, scale: Scale, *, slot: int = 0,
               segments: Sequence[bool] | None = None) -> bytes:
        """Encode what was measured; again with another scale, if need be."""
        return self._encode(scale, slot, segments, None)

    def encode_with_report(self, scale: Scale, *, slot: int = 0,
                           segments: Sequence[bool] | None = None
                           ) -> tuple[bytes, EncodeReport]:
        """Encode, and say what did not fit the grid."""
        blocks = np.zeros(self._norm_count, np.uint16)
        report = _lib.init(_lib.EncodeReport)
        report.block_clamped = blocks.ctypes.data_as(_lib.U16P)
        report.n_block_clamped = blocks.size
        encoded = self._encode(scale, slot, segments, byref(report))
        return encoded, EncodeReport(report.clamped, report.rescaled, blocks)

    def _encode(self, scale: Scale, slot: int,
                segments: Sequence[bool] | None, report: Any) -> bytes:
        options = _lib.init(_lib.EncodeOptions)
        options.slot = slot
        if segments is not None:
            chosen = np.asarray(segments, bool).astype(np.uint8)
            options.segments = chosen.ctypes.data_as(_lib.U8P)
            options.n_segments = chosen.size
        buffer = np.empty(self._max_update_size, np.uint8)
        needed = c_size_t()
        lib.fl_feedback_encode(
            self._handle, byref(scale._struct()), byref(options),
            buffer.ctypes.data_as(_lib.U8P), buffer.size, byref(needed),
            report)
        return buffer[:needed.value].tobytes()

    def settle(self, is_counted: bool | np.bool_ | Sequence[bool]
               | npt.NDArray[np.bool_]) -> None:
        """End the round: was the update counted, as a whole or segment by
        segment?"""
        given = np.asarray(is_counted)
        # A number, a text or a list of them would be true without a word.
        if given.dtype != np.bool_ or given.ndim > 1:
            raise TypeError(f"is_counted: got {is_counted!r}, want a bool or "
                            "one for each segment")
        if given.ndim == 0:
            lib.fl_feedback_settle(self._handle, int(given), None, 0)
            return
        counted = given.astype(np.uint8)
        lib.fl_feedback_settle(self._handle, int(counted.any()),
                               counted.ctypes.data_as(_lib.U8P),
                               counted.size)

    def withdraw(self, x: npt.ArrayLike) -> None:
        """Undo the measurement of `x`, as if it had never been."""
        array = _np.f32(x, "x", self._dim)
        lib.fl_feedback_withdraw(self._handle, _np.f32_pointer(array),
                                 array.size)

    def reset(self) -> None:
        """Forget what was lost, and the round."""
        lib.fl_feedback_reset(self._handle)

    def save(self) -> bytes:
        """Return everything, in any phase: Feedback(..., state=bytes)."""
        return _state.save(lib.fl_feedback_save, self._handle, None)
