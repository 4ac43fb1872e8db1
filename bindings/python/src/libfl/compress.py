# SPDX-License-Identifier: Apache-2.0
"""Summable compression of updates: Compressor, Scale, Partial.

A round: every worker measures its update, the norms are merged, every worker
encodes, anybody adds the bytes to a Partial, and the mean is decoded once.
Everything here gives the same bytes on every machine.
"""
from __future__ import annotations

import dataclasses
import enum
from typing import Any, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _err, _lib, _np
from ._err import FlError
from ._handle import Handle
from ._lib import byref, c_int32, c_size_t, c_uint32, c_uint64, lib
from ._np import BytesLike, F32Array
from .context import Context, lease_of


class Codec(enum.IntEnum):
    """How numbers travel: as they are, halved, or summably compressed."""

    F32 = 1
    BF16 = 2
    THC = 3


class ThcMode(enum.IntEnum):
    """How THC rounds; DITHER has less error and needs slots, TABLE rounds to
    values that are closest together where numbers are frequent."""

    UNIFORM = 1
    DITHER = 2
    TABLE = 3


def _member(kind: type[enum.IntEnum], value: Any, name: str) -> int:
    if not isinstance(value, str):
        return int(value)
    try:
        return int(kind[value.upper()])
    except KeyError:
        raise ValueError(f"{name}: got {value!r}, want one of "
                         f"{[one.name.lower() for one in kind]}") from None


def _seed(value: bytes, name: str) -> bytes:
    if len(value) != _lib.SEED_BYTES:
        raise ValueError(f"{name}: got {len(value)} bytes, "
                         f"want {_lib.SEED_BYTES}")
    return value


def _table(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    table = np.asarray(values)
    if (table.ndim != 1 or table.dtype.kind not in "iu"
            or (table < 0).any() or (table > 255).any()):
        raise ValueError(f"table: got {values!r}, want integers 0..255")
    return np.ascontiguousarray(table, np.uint8)


def _tuple(values: Any) -> Any:
    """Nested lists as nested tuples: what is wrong is said when it is used."""
    if isinstance(values, (list, tuple)):
        return tuple(_tuple(one) for one in values)
    return values


@dataclasses.dataclass(frozen=True)
class CodecOptions:
    """How updates are encoded. None and 0 leave the choice to the library.

    `bits`: THC, per coordinate, 1..8. `granularity`: THC, largest grid value;
    in table mode up to 255. `clip`: THC, half width of the grid in standard
    deviations; a table is solved together with it. `rotation_seed`: 32 bytes, the same for everybody for the whole
    job; all zero lets a server's job derive one. `workers`: table mode without
    a granularity, updates that one sum will hold. `table`: table mode, the
    grid values of the 2**bits indices, from 0 to the granularity; None = those
    with the least error.
    """

    codec: Codec | str = Codec.THC
    thc_mode: ThcMode | str | None = None
    bits: int | None = None
    granularity: int = 0
    clip: float = 0.0
    rotation_seed: bytes = bytes(_lib.SEED_BYTES)
    workers: int = 0
    table: Sequence[int] | None = None

    def __post_init__(self) -> None:
        # An array has no hash, and compares element by element.
        if isinstance(self.table, np.ndarray):
            object.__setattr__(self, "table", _tuple(self.table.tolist()))
        elif self.table is not None:
            object.__setattr__(self, "table", _tuple(self.table))

    def _struct(self) -> Any:
        options = _lib.init(_lib.CompressorOptions)
        options.codec = _member(Codec, self.codec, "codec")
        if self.thc_mode is not None:
            options.thc_mode = _member(ThcMode, self.thc_mode, "thc_mode")
        if self.bits is not None:
            options.bits = self.bits
        options.granularity = self.granularity
        options.clip = self.clip
        options.rotation_seed[:] = _seed(self.rotation_seed, "rotation_seed")
        options.workers = _args.u32(self.workers, "workers")
        if self.table is not None:
            values = _table(self.table)
            options.table = values.ctypes.data_as(_lib.U8P)
            options.n_table = values.size
            options.kept = values  # alive as long as the struct
        return options


def codec_options(codec: CodecOptions | Codec | str) -> CodecOptions:
    """Return full options for a codec given by name."""
    if isinstance(codec, CodecOptions):
        return codec
    return CodecOptions(codec)


@dataclasses.dataclass
class Scale:
    """What all workers of a round agree on.

    `slots`: workers at most, 1..65535. `weight_cap`: the samples one update
    may claim; 0 = all count the same. `noise_seed`: 32 bytes, new every
    round. `norms`: the merged norms; measuring needs none yet.
    """

    slots: int = 1
    round: int = 0
    weight_cap: int = 0
    noise_seed: bytes = bytes(_lib.SEED_BYTES)
    norms: npt.ArrayLike | None = None
    clip: float = 0.0
    is_public: bool = False

    def _struct(self) -> Any:
        scale = _lib.init(_lib.Scale)
        scale.slots = self.slots
        scale.round = self.round
        scale.weight_cap = self.weight_cap
        scale.noise_seed[:] = _seed(self.noise_seed, "noise_seed")
        if self.norms is not None:
            norms = _np.f32(self.norms, "norms")
            scale.norms = _np.f32_pointer(norms)
            scale.n_norms = norms.size
            scale.kept = norms  # alive as long as the struct
        scale.clip = self.clip
        scale.is_public = int(self.is_public)
        return scale


@dataclasses.dataclass(frozen=True)
class EncodeReport:
    """`clamped`: coordinates outside the grid; `rescaled`: blocks scaled
    down to the agreed norm; `block_clamped`: clamped per block."""

    clamped: int
    rescaled: int
    block_clamped: npt.NDArray[np.uint16]


class Compressor(Handle):
    """Encode and decode float32 vectors.

    `sizes`: the vector's length, or the lengths of its segments
    (Model.segments).
    """

    def __init__(self, sizes: int | Sequence[int],
                 codec: CodecOptions | Codec | str = Codec.THC, *,
                 context: Context | None = None) -> None:
        runs = np.atleast_1d(np.asarray(sizes))
        if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any():
            raise ValueError("sizes: want positive integers")
        runs = runs.astype(np.uint64)
        options = codec_options(codec)._struct()
        self._n_values = 1 << min(options.bits, 8)
        pointer, lease = lease_of(context)
        self._own(_lib.new(_lib.Compressor, lib.fl_compressor_new, pointer,
                           byref(options), _np.u64_pointer(runs), runs.size),
                  lib.fl_compressor_free, lease)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(lib.fl_compressor_dim(self._handle))

    @property
    def norm_count(self) -> int:
        return int(lib.fl_compressor_norm_count(self._handle))

    @property
    def clip(self) -> float:
        """Half width of the grid in standard deviations; 0 without one."""
        return float(lib.fl_compressor_clip(self._handle))

    @property
    def granularity(self) -> int:
        """The largest grid value; 0 without a grid."""
        return int(lib.fl_compressor_granularity(self._handle))

    @property
    def table(self) -> npt.NDArray[np.uint8]:
        """The grid values that indices stand for. StateError without any."""
        values = np.empty(self._n_values, np.uint8)
        lib.fl_compressor_copy_table(
            self._handle, values.ctypes.data_as(_lib.U8P), values.size)
        return values

    def best_clip(self, workers: int, coherence: float = 0.0,
                  spread: float = 1.0) -> float:
        """Return the clip (Scale.clip) with the least expected error of a
        mean over that many workers, whose updates have a `coherence` of
        |mean|**2 / mean(|x|**2); 0 = independent. `spread`: how far agreed
        norms are above the workers' own; 1 = not known. 0 without a grid."""
        return float(lib.fl_compressor_best_clip(
            self._handle, _args.u32(workers, "workers"), coherence, spread))

    @property
    def max_update_size(self) -> int:
        """Upper bound in bytes of what encode returns."""
        return int(lib.fl_compressor_max_update_size(self._handle))

    def measure(self, x: npt.ArrayLike, scale: Scale | None = None, *,
                samples: int = 1) -> F32Array:
        """Return the norm of every block of the weighted update."""
        array = _np.f32(x, "x", self.dim)
        norms = np.empty(self.norm_count, np.float32)
        lib.fl_compressor_measure(
            self._handle, byref((scale or Scale())._struct()),
            _args.u64(samples, "samples"), _np.f32_pointer(array), array.size,
            _np.f32_pointer(norms), norms.size)
        return norms

    def encode(self, x: npt.ArrayLike, scale: Scale, *, slot: int = 0,
               samples: int = 1,
               segments: Sequence[bool] | None = None) -> bytes:
        """Encode one update; `slot` is this worker's own in the round,
        `segments` says which runs to send (default: all)."""
        return self._encode(x, scale, slot, samples, segments, None)

    def encode_with_report(
            self, x: npt.ArrayLike, scale: Scale, *, slot: int = 0,
            samples: int = 1, segments: Sequence[bool] | None = None
    ) -> tuple[bytes, EncodeReport]:
        """Encode, and say what did not fit the grid."""
        blocks = np.zeros(self.norm_count, np.uint16)
        report = _lib.init(_lib.EncodeReport)
        report.block_clamped = blocks.ctypes.data_as(_lib.U16P)
        report.n_block_clamped = blocks.size
        encoded = self._encode(x, scale, slot, samples, segments,
                               byref(report))
        return encoded, EncodeReport(report.clamped, report.rescaled, blocks)

    def _encode(self, x: npt.ArrayLike, scale: Scale, slot: int, samples: int,
                segments: Sequence[bool] | None, report: Any) -> bytes:
        array = _np.f32(x, "x", self.dim)
        options = _lib.init(_lib.EncodeOptions)
        options.slot = slot
        options.samples = samples
        if segments is not None:
            chosen = np.asarray(segments, bool).astype(np.uint8)
            options.segments = chosen.ctypes.data_as(_lib.U8P)
            options.n_segments = chosen.size
        buffer = np.empty(self.max_update_size, np.uint8)
        needed = c_size_t()
        lib.fl_compressor_encode(
            self._handle, byref(scale._struct()), byref(options),
            _np.f32_pointer(array), array.size,
            buffer.ctypes.data_as(_lib.U8P), buffer.size, byref(needed),
            report)
        return buffer[:needed.value].tobytes()

    def decode(self, data: BytesLike, scale: Scale,
               out: F32Array | None = None) -> F32Array:
        """Decode the weighted mean from a sum's bytes or from one update.
        Segments that nobody sent come out as zeros."""
        pointer, size = _np.data(data, "data")
        result = _np.output(out, "out", [self.dim])
        lib.fl_compressor_decode(self._handle, byref(scale._struct()),
                                 pointer, size, _np.f32_pointer(result),
                                 result.size)
        return result

    def partial(self, scale: Scale) -> Partial:
        """Start an empty sum for one round."""
        return Partial(self, scale)


class Partial(Handle):
    """The running sum of one round's encoded updates. Adding commutes: any
    order and any tree of sums gives the same bytes."""

    def __init__(self, compressor: Compressor, scale: Scale) -> None:
        self._dim = compressor.dim
        lease = compressor._lease()
        self._own(_lib.new(_lib.Partial, lib.fl_partial_new, lease.pointer,
                           byref(scale._struct())),
                  lib.fl_partial_free, lease)

    def add(self, data: BytesLike) -> None:
        """Add one encoded update. On any error the sum is as it was."""
        lib.fl_partial_add(self._handle, *_np.data(data, "data"))

    def add_many(self, updates: Iterable[BytesLike],
                 weights: Iterable[int] | None = None
                 ) -> list[FlError | None]:
        """Add many encoded updates at once, which costs little more than
        adding one. Return None for each that was added and the exception that
        says why for each that was not; it does not stop the others.

        `weights`: of every update, 1..65535. One of weight w counts as if w
        workers had sent it (THC without dither only)."""
        items = list(updates)
        given = [_np.data(item, f"updates[{i}]")
                 for i, item in enumerate(items)]
        factors = None if weights is None else [
            _args.u32(w, f"weights[{i}]") for i, w in enumerate(weights)]
        n = len(given)
        if factors is not None and len(factors) != n:
            raise ValueError(f"weights: got {len(factors)}, want {n}")
        results = (c_int32 * n)()
        lib.fl_partial_add_batch(
            self._handle, (_lib.U8P * n)(*(pointer for pointer, _ in given)),
            (c_size_t * n)(*(size for _, size in given)),
            None if factors is None else (c_uint32 * n)(*factors), n, results)
        return [self._refusal(i, items[i], results[i],
                              1 if factors is None else factors[i])
                if results[i] else None for i in range(n)]

    def _refusal(self, i: int, data: BytesLike, status: int,
                 weight: int) -> FlError:
        """The exception for an update of a batch that was left out: the
        library keeps the text of the last one only."""
        kind = type(_err.from_status(status, "", ""))
        try:
            slot, _ = self.peek(data)
            text = f"slot {slot}, {kind.meaning}"
            if weight != 1:
                text += f" (lane weight {weight})"
        except FlError as error:
            text = str(error) if error.status == status else kind.meaning
        return _err.from_status(status, "fl_partial_add_batch",
                                f"updates[{i}]: {text}")

    def peek(self, data: BytesLike) -> tuple[int, int]:
        """Return (slot, samples) of an encoded update without adding it."""
        slot, samples = c_uint32(), c_uint64()
        lib.fl_partial_peek(self._handle, *_np.data(data, "data"),
                            byref(slot), byref(samples))
        return slot.value, samples.value

    def merge(self, other: Partial | BytesLike,
              slots: range | None = None) -> None:
        """Add another sum of the same round, or one that came as bytes.

        `slots`: those that the sender of the bytes, an edge, speaks for;
        ConflictError when it holds others, DuplicateError when it was counted
        before."""
        if slots is not None:
            if isinstance(other, Partial) or slots.step != 1:
                raise ValueError("slots: want bytes, and a range of step 1")
            lib.fl_partial_merge_edge(
                self._handle, *_np.data(other, "other"),
                _args.u32(slots.start, "slots"), _args.u32(len(slots), "slots"))
        elif isinstance(other, Partial):
            lib.fl_partial_merge(self._handle, other._handle)
        else:
            lib.fl_partial_merge_bytes(self._handle,
                                       *_np.data(other, "other"))

    def __len__(self) -> int:
        """Number of updates in the sum."""
        return int(lib.fl_partial_count(self._handle))

    def __bool__(self) -> bool:
        return True

    def __contains__(self, slot: int) -> bool:
        return bool(lib.fl_partial_has_slot(self._handle,
                                            _args.u32(slot, "slot")))

    @property
    def weight(self) -> int:
        """Sum of the updates' lane weights: their number, unless add_many was
        given others."""
        return int(lib.fl_partial_weight(self._handle))

    @property
    def samples(self) -> int:
        """Sum of the samples that the updates count with."""
        return int(lib.fl_partial_samples(self._handle))

    def to_bytes(self) -> bytes:
        """Return the sum as bytes, for Compressor.decode or merge."""
        return _lib.copy_bytes(lib.fl_partial_copy_sum, self._handle)

    def decode(self, out: F32Array | None = None) -> F32Array:
        """Return the weighted mean."""
        result = _np.output(out, "out", [self._dim])
        lib.fl_partial_decode(self._handle, _np.f32_pointer(result),
                              result.size)
        return result


def merge_norms(norms: Iterable[npt.ArrayLike]) -> F32Array:
    """Return the elementwise maximum of what the workers measured."""
    merged: F32Array | None = None
    for one in norms:
        array = _np.f32(one, "norms", None if merged is None else merged.size)
        if merged is None:
            merged = np.zeros(array.size, np.float32)
        lib.fl_norms_merge(_np.f32_pointer(merged), _np.f32_pointer(array),
                           array.size)
    if merged is None:
        raise ValueError("norms: got none, want at least one")
    return merged
