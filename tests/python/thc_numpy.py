# SPDX-License-Identifier: Apache-2.0
"""The THC codec in numpy, written from docs/design/thc.md alone.

It shares no code with the library: BLAKE2b is hashlib's, ChaCha20 and the rest
are here, plain and slow. What it writes must be what the library writes, byte
for byte; where they differ, one of them or the document is wrong. Only the
solvers are left out: clip and table are parameters.

float32 stands for float32 here: numpy rounds every operation once. Scalars are
Python's floats, rounded to float32 at the end.
"""
from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from typing import Iterable, Sequence

import numpy as np

UNIFORM, DITHER, TABLE = 1, 2, 3
THC = 3
FULL_BLOCK = 4096
HEADER = struct.Struct("<4sHBBBBHIIIQQQQ")
PAYLOAD_ALIGNMENT = 64
GOLDEN = 0x9e3779b97f4a7c15
LEAST_NORM = 2.0 ** -80


def derive(seed: bytes, purpose: str, a: int, b: int) -> bytes:
    """Return the key that a purpose has under a seed."""
    message = purpose.encode() + b"\0" + struct.pack("<QQ", a, b)
    return hashlib.blake2b(message, digest_size=32, key=seed).digest()


def identifier(*parts: bytes) -> int:
    digest = hashlib.blake2b(b"".join(parts), digest_size=32).digest()
    return int.from_bytes(digest[:8], "little")


def chacha20(key: bytes, streams: Sequence[int], size: int) -> np.ndarray:
    """Return `size` bytes, a multiple of 64, of every stream's key stream."""
    n, blocks = len(streams), size // 64
    state = np.empty((16, n, blocks), np.uint32)
    state[:4] = np.frombuffer(b"expand 32-byte k",
                              np.uint32).reshape(4, 1, 1)
    state[4:12] = np.frombuffer(key, "<u4").reshape(8, 1, 1)
    state[12] = np.arange(blocks, dtype=np.uint32)
    number = np.asarray(streams, np.uint64)[:, None]
    state[13] = (number & np.uint64(0xffffffff)).astype(np.uint32)
    state[14] = (number >> np.uint64(32)).astype(np.uint32)
    state[15] = 0
    work = state.copy()

    def mix(to: int, by: int, xored: int, distance: int) -> None:
        work[to] += work[by]
        work[xored] ^= work[to]
        work[xored] = (work[xored] << np.uint32(distance)
                       | work[xored] >> np.uint32(32 - distance))

    def quarter(a: int, b: int, c: int, d: int) -> None:
        mix(a, b, d, 16)
        mix(c, d, b, 12)
        mix(a, b, d, 8)
        mix(c, d, b, 7)

    for _ in range(10):
        for k in range(4):
            quarter(k, 4 + k, 8 + k, 12 + k)
        for k in range(4):
            quarter(k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4)
    work += state
    words = np.ascontiguousarray(work.transpose(1, 2, 0)).astype("<u4")
    return words.reshape(n, -1).view(np.uint8)


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Return the output function of SplitMix64."""
    z = state.astype(np.uint64)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94d049bb133111eb)
    return z ^ z >> np.uint64(31)


def noise(key: bytes, units: np.ndarray, block: int) -> np.ndarray:
    """Return the 16 bits of every coordinate of the units."""
    counters = chacha20(key, [0], 128).view("<u8")[0]
    starts = (units.astype(np.uint64) * np.uint64(GOLDEN))[:, None]
    z = splitmix64(counters[None, :] + starts)

    def bits(at: int) -> np.ndarray:
        return (z >> np.uint64(at) & np.uint64(0xffff)).astype(np.uint32)

    x = np.concatenate([bits(32), bits(48)], axis=1)
    step = np.concatenate([bits(0), bits(16)], axis=1) | np.uint32(1)
    out = np.empty((units.size, block), np.int64)
    for at in range(0, block, 32):
        x = x * np.uint32(25173) + step & np.uint32(0xffff)
        out[:, at:at + 32] = x
    return out


def bit_reversed(number: int) -> int:
    return int(f"{number:016b}"[::-1], 2)


def offsets(slots: int) -> np.ndarray:
    """Return o_s of every slot."""
    out = np.empty(slots, np.int64)
    for rank, slot in enumerate(sorted(range(slots), key=bit_reversed)):
        out[slot] = 65536 * rank // slots
    return out


def hadamard(rows: np.ndarray, distances: Iterable[int]) -> np.ndarray:
    """Return every row's transform, one float32 rounding per butterfly."""
    for distance in distances:
        pairs = rows.reshape(rows.shape[0], -1, 2, distance)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        rows = np.stack([a + b, a - b], axis=2).reshape(rows.shape)
    return rows


def distances_of(block: int) -> list[int]:
    """Return 1, 2, ..., block / 2."""
    return [1 << k for k in range(block.bit_length() - 1)]


def round_up_to_bf16(values: np.ndarray) -> np.ndarray:
    """Return the least bfloat16 that is not below, as float32."""
    single = values.astype(np.float32)
    low = single.astype(np.float64) < values
    single[low] = np.nextafter(single[low], np.float32(np.inf))
    bits = single.view(np.uint32)
    return (bits + np.uint32(0xffff) & np.uint32(0xffff0000)).view(np.float32)


def pack(indices: np.ndarray, bits: int) -> bytes:
    each = np.unpackbits(indices.astype(np.uint8).reshape(-1, 1), axis=1,
                         bitorder="little")[:, :bits]
    return np.packbits(each.reshape(-1), bitorder="little").tobytes()


def unpack(data: bytes, bits: int) -> np.ndarray:
    each = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return np.packbits(each.reshape(-1, bits), axis=1,
                       bitorder="little")[:, 0].astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Group:
    """Units of one size that lie side by side: a segment's full blocks, or
    its tail."""

    segment: int
    first: int
    count: int
    block: int
    start: int
    stop: int

    @property
    def units(self) -> np.ndarray:
        return np.arange(self.first, self.first + self.count)

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.count)

    def neighbourhoods(self) -> list[tuple[int, int]]:
        """Return (first block, blocks) of each."""
        pieces = -(-self.count // 31)
        sizes = [self.count // pieces + (k < self.count % pieces)
                 for k in range(pieces)]
        return [(sum(sizes[:k]), size) for k, size in enumerate(sizes)]

    def gather(self, vector: np.ndarray) -> np.ndarray:
        """Return the units as rows."""
        rows = np.zeros((self.count, self.block), np.float32)
        run = vector[self.start:self.stop]
        if self.block * self.count != run.size or self.count == 1:
            rows[0, :run.size] = run
            return rows
        for first, n in self.neighbourhoods():
            part = run[first * self.block:(first + n) * self.block]
            lines = part.reshape(-1, n, 16).transpose(1, 0, 2)
            rows[first:first + n] = lines.reshape(n, -1)
        return rows

    def scatter(self, rows: np.ndarray, vector: np.ndarray) -> None:
        """Put the rows back where they were gathered from."""
        run = vector[self.start:self.stop]
        if self.block * self.count != run.size or self.count == 1:
            run[:] = rows[0, :run.size]
            return
        for first, n in self.neighbourhoods():
            lines = rows[first:first + n].reshape(n, -1, 16)
            run[first * self.block:(first + n) * self.block] = (
                lines.transpose(1, 0, 2).reshape(-1))


def layout(sizes: Sequence[int]) -> list[Group]:
    """Cut segments into units."""
    groups: list[Group] = []
    unit = start = 0
    for segment, size in enumerate(sizes):
        full, left = divmod(size, FULL_BLOCK)
        if full:
            stop = start + full * FULL_BLOCK
            groups.append(Group(segment, unit, full, FULL_BLOCK, start, stop))
        if left:
            block = max(256, 1 << (left - 1).bit_length())
            groups.append(Group(segment, unit + full, 1, block,
                                start + size - left, start + size))
        unit += full + (left > 0)
        start += size
    return groups


@dataclasses.dataclass
class Update:
    """What the bytes of an update say: indices by unit."""

    slot: int
    samples: int
    segments: list[bool]
    indices: dict[int, np.ndarray]
    clamped: int = 0
    rescaled: int = 0


@dataclasses.dataclass
class Tally:
    """Which updates a sum or a segment of it holds."""

    weight: int = 0
    samples: int = 0
    slots: set[int] = dataclasses.field(default_factory=set)

    def add(self, slot: int, samples: int, cap: int, weight: int) -> None:
        self.weight += weight
        self.samples += weight * (min(samples, cap) if cap else 1)
        self.slots.add(slot)


@dataclasses.dataclass
class Sum:
    whole: Tally
    tallies: list[Tally]
    lanes: dict[int, np.ndarray]


class Codec:
    """THC for vectors of these segments. `clip` is in use where the scale
    has none."""

    def __init__(self, sizes: Sequence[int], mode: int, bits: int, clip: float,
                 rotation_seed: bytes,
                 table: Sequence[int] | None = None) -> None:
        self.sizes = list(sizes)
        self.mode, self.bits, self.clip = mode, bits, clip
        self.table = np.asarray(
            range(1 << bits) if table is None else table, np.int64)
        self.g = int(self.table[-1])
        self.groups = layout(sizes)
        self.n_units = self.groups[-1].first + self.groups[-1].count
        self.rotation_seed = rotation_seed
        values = bytes(self.table.tolist()) if mode == TABLE else b""
        self.id = identifier(
            b"fl compressor 1\0", struct.pack("<4Q", THC, mode, bits, self.g),
            values, rotation_seed, struct.pack("<Q", len(sizes)),
            struct.pack(f"<{len(sizes)}Q", *sizes))
        key = derive(rotation_seed, "thc signs", 0, 0)
        stream = chacha20(key, range(self.n_units), 512)
        self.is_minus = np.unpackbits(stream, axis=1,
                                      bitorder="little").astype(bool)

    def clip_of(self, scale) -> float:
        return float(np.float32(scale.clip or self.clip))

    def scale_id(self, scale) -> int:
        norms = np.asarray(scale.norms, np.float32).view(np.uint32)
        clip = np.float32(self.clip_of(scale)).view(np.uint32)
        return identifier(
            b"fl scale 1\0",
            struct.pack("<5Q", scale.round, scale.slots, scale.weight_cap,
                        int(scale.is_public), int(clip)),
            scale.noise_seed,
            (norms >> np.uint32(16)).astype("<u2").tobytes())

    def header(self, scale, magic: bytes, payload: int) -> bytes:
        return HEADER.pack(
            magic, 2, THC, self.mode, self.bits, int(scale.is_public), self.g,
            scale.slots, len(self.sizes), 0, scale.round, self.id,
            self.scale_id(scale), payload)

    def is_sent(self, scale) -> np.ndarray:
        return np.asarray(scale.norms, np.float32) >= LEAST_NORM

    # ---- norms

    def lengths(self, vector: np.ndarray, weight: float) -> np.ndarray:
        """Return the length of every unit, not rounded to bfloat16."""
        out = np.empty(self.n_units)
        for group in self.groups:
            rows = group.gather(vector).astype(np.float64)
            lines = np.square(rows).reshape(group.count, -1, 16)
            lanes = np.zeros((group.count, 16))
            for line in range(lines.shape[1]):
                lanes += lines[:, line]
            for half in (8, 4, 2, 1):
                lanes = lanes[:, :half] + lanes[:, half:2 * half]
            out[group.rows] = np.sqrt(lanes[:, 0]) * weight
        return out

    @staticmethod
    def weight_of(scale, samples: int) -> float:
        if not scale.weight_cap:
            return 1.0
        return float(np.float32(min(1.0, samples / scale.weight_cap)))

    def measure(self, vector: np.ndarray, scale, samples: int) -> np.ndarray:
        return round_up_to_bf16(
            self.lengths(vector, self.weight_of(scale, samples)))

    # ---- updates

    def noise_of(self, scale, slot: int, group: Group) -> np.ndarray:
        if self.mode == DITHER:
            key = derive(scale.noise_seed, "thc dither", 0, 0)
            shared = noise(key, group.units, group.block)
            return (shared + offsets(scale.slots)[slot]) % 65536
        key = derive(scale.noise_seed, "thc uniform", slot, 0)
        return noise(key, group.units, group.block)

    def factors(self, lengths: np.ndarray, scale, weight: float
                ) -> tuple[np.ndarray, np.ndarray]:
        """Return `a` of every unit, and which units are scaled down."""
        agreed = np.asarray(scale.norms, np.float32).astype(np.float64)
        limit = agreed * (2.0 ** 40 if scale.is_public else 1.0)
        above = round_up_to_bf16(lengths).astype(np.float64) > limit
        clip = self.clip_of(scale)
        a = np.zeros(self.n_units, np.float32)
        for unit in np.flatnonzero(self.is_sent(scale)):
            down = limit[unit] / lengths[unit] if above[unit] else 1.0
            cells = 65536 * self.g / (2 * clip * agreed[unit])
            a[unit] = np.float32(weight * down * cells)
        return a, above

    def quantise(self, y: np.ndarray, u: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray]:
        """Return indices, and which coordinates were outside the grid."""
        t = np.float32(32768 * self.g + .5) + y
        if self.mode == TABLE:
            cut = np.clip(t, 0, np.float32(65536 * self.g))
            place = np.trunc(cut).astype(np.int64)
            j = np.searchsorted(self.table, place >> 16, side="right") - 1
            gap = np.append(np.diff(self.table), 0)[j]
            up = place - 65536 * self.table[j] > u * gap
            return j + up, t != cut
        place = np.trunc(np.clip(t, -2.0 ** 30, 2.0 ** 30)).astype(np.int64)
        q = (place + u) >> 16
        return np.clip(q, 0, self.g), (q < 0) | (q > self.g)

    def quantised(self, vector: np.ndarray, scale, slot: int, samples: int,
                  segments: Sequence[bool] | None = None) -> Update:
        weight = self.weight_of(scale, samples)
        chosen = [bool(b) for b in (segments or [True] * len(self.sizes))]
        update = Update(slot, samples, chosen, {})
        a, above = self.factors(self.lengths(vector, weight), scale, weight)
        sent = self.is_sent(scale)
        for group in self.groups:
            if not chosen[group.segment]:
                continue
            minus = self.is_minus[group.rows, :group.block]
            factor = a[group.rows, None]
            rows = group.gather(vector) * np.where(minus, -factor, factor)
            y = hadamard(rows, reversed(distances_of(group.block)))
            q, outside = self.quantise(y, self.noise_of(scale, slot, group))
            update.rescaled += int(above[group.rows].sum())
            for k in np.flatnonzero(sent[group.rows]):
                update.indices[group.first + k] = q[k]
                update.clamped += int(outside[k].sum())
        return update

    def update_bytes(self, update: Update, scale) -> bytes:
        payload = b"".join(pack(update.indices[unit], self.bits)
                           for unit in sorted(update.indices))
        data = (self.header(scale, b"FLCU", len(payload))
                + struct.pack("<IIQ", update.slot, 0, update.samples)
                + bytes(update.segments))
        return data + bytes(-len(data) % PAYLOAD_ALIGNMENT) + payload

    def encode(self, vector: np.ndarray, scale, slot: int = 0,
               samples: int = 1, segments: Sequence[bool] | None = None
               ) -> bytes:
        return self.update_bytes(
            self.quantised(vector, scale, slot, samples, segments), scale)

    def units_of(self, scale, segments: Sequence[bool]
                 ) -> list[tuple[Group, int]]:
        """Return the units whose payload a message with these segments has."""
        sent = self.is_sent(scale)
        return [(group, int(unit)) for group in self.groups
                if segments[group.segment]
                for unit in group.units if sent[unit]]

    def read_update(self, data: bytes, scale) -> Update:
        slot, _, samples = struct.unpack_from("<IIQ", data, HEADER.size)
        at = HEADER.size + 16
        segments = [bool(b) for b in data[at:at + len(self.sizes)]]
        at += len(self.sizes)
        at += -at % PAYLOAD_ALIGNMENT
        update = Update(slot, samples, segments, {})
        for group, unit in self.units_of(scale, segments):
            size = group.block * self.bits // 8
            update.indices[unit] = unpack(data[at:at + size], self.bits)
            at += size
        assert at == len(data)
        return update

    # ---- sums

    def add(self, updates: Iterable[Update], scale,
            weights: Sequence[int] | None = None) -> Sum:
        total = Sum(Tally(), [Tally() for _ in self.sizes], {})
        updates = list(updates)
        for update, weight in zip(updates, weights or [1] * len(updates)):
            told = update.slot, update.samples, scale.weight_cap, weight
            total.whole.add(*told)
            for segment, is_in in enumerate(update.segments):
                if is_in:
                    total.tallies[segment].add(*told)
            for unit, q in update.indices.items():
                total.lanes[unit] = (total.lanes.get(unit, 0)
                                     + weight * self.table[q])
        return total

    def lane_type(self, tally: Tally) -> np.dtype:
        most = tally.weight * self.g
        return np.dtype("u1" if most < 1 << 8 else
                        "<u2" if most < 1 << 16 else "<u4")

    def sum_bytes(self, total: Sum, scale) -> bytes:
        tallies = [total.whole]
        if any(tally != total.whole for tally in total.tallies):
            tallies += total.tallies
        head = struct.pack("<II", len(tallies), 0)
        for tally in tallies:
            bitmap = bytearray(-(-scale.slots // 8))
            for slot in tally.slots:
                bitmap[slot // 8] |= 1 << slot % 8
            head += struct.pack("<IIQ", len(tally.slots), tally.weight,
                                tally.samples) + bitmap
        payload = b"".join(
            total.lanes[unit].astype(
                self.lane_type(total.tallies[group.segment])).tobytes()
            for group, unit in self.units_of(
                scale, [bool(t.slots) for t in total.tallies]))
        return self.header(scale, b"FLCS", len(payload)) + head + payload

    def read_sum(self, data: bytes, scale) -> Sum:
        n_tallies, _ = struct.unpack_from("<II", data, HEADER.size)
        at = HEADER.size + 8
        tallies = []
        for _ in range(n_tallies):
            _, weight, samples = struct.unpack_from("<IIQ", data, at)
            size = -(-scale.slots // 8)
            bitmap = np.frombuffer(data, np.uint8, size, at + 16)
            slots = np.flatnonzero(np.unpackbits(bitmap, bitorder="little"))
            tallies.append(Tally(weight, samples, set(slots.tolist())))
            at += 16 + size
        total = Sum(tallies[0], tallies[1:] or tallies * len(self.sizes), {})
        for group, unit in self.units_of(
                scale, [bool(t.slots) for t in total.tallies]):
            kind = self.lane_type(total.tallies[group.segment])
            lanes = np.frombuffer(data, kind, group.block, at)
            total.lanes[unit] = lanes.astype(np.int64)
            at += lanes.nbytes
        assert at == len(data)
        return total

    # ---- decoding

    def places(self, lanes: np.ndarray, tally: Tally, scale, group: Group,
               rows: np.ndarray) -> tuple[np.ndarray, int]:
        """Return Y and k."""
        m, g = tally.weight, self.g
        if self.mode != DITHER:
            return 2 * lanes - m * g, 1
        k = 16
        while m * (g + 1) >= 1 << 16 and m * (g + 1) >= 1 << 32 - k:
            k -= 1
        key = derive(scale.noise_seed, "thc dither", 0, 0)
        shared = noise(key, group.units[rows], group.block)
        each = offsets(scale.slots)

        def noise_sum(slots: Iterable[int]) -> np.ndarray:
            total = np.zeros_like(shared)
            for slot in slots:
                total += (shared + each[slot]) % 65536
            return total

        missing = set(range(scale.slots)) - tally.slots
        if len(tally.slots) <= scale.slots // 2:
            taken = noise_sum(tally.slots) >> 16 - k
        else:
            taken = scale.slots * shared % 65536 - noise_sum(missing)
            taken = (taken >> 16 - k) + (int(each.sum()) >> 16 - k)
        return (lanes << k) - taken - (m * (g - 1) << k - 1), k

    def decode_sum(self, total: Sum, scale) -> np.ndarray:
        out = np.zeros(sum(self.sizes), np.float32)
        agreed = np.asarray(scale.norms, np.float32).astype(np.float64)
        for group in self.groups:
            tally = total.tallies[group.segment]
            rows = np.flatnonzero(self.is_sent(scale)[group.rows])
            if not tally.slots or not rows.size:
                continue
            lanes = np.stack([total.lanes[group.first + k] for k in rows])
            y, k = self.places(lanes, tally, scale, group, rows)
            assert (np.abs(y) < 1 << 31).all()
            x = hadamard(y.astype(np.float32), distances_of(group.block))
            weight = 1.0
            if scale.weight_cap:
                weight = (float(tally.weight) * scale.weight_cap
                          / tally.samples)
            cell = 2 * self.clip_of(scale) / self.g
            parts = 2.0 ** k * tally.weight * group.block
            b = (cell * agreed[group.rows][rows] * weight
                 / parts).astype(np.float32)[:, None]
            minus = self.is_minus[group.rows, :group.block][rows]
            blocks = np.zeros((group.count, group.block), np.float32)
            blocks[rows] = x * np.where(minus, -b, b)
            group.scatter(blocks, out)
        return out

    def decode(self, data: bytes, scale) -> np.ndarray:
        """Decode a sum's or an update's bytes."""
        if data[:4] == b"FLCS":
            return self.decode_sum(self.read_sum(data, scale), scale)
        return self.decode_sum(
            self.add([self.read_update(data, scale)], scale), scale)
