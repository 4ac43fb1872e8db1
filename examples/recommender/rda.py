# SPDX-License-Identifier: Apache-2.0
"""Data frames out of R's .rda files (XDR, versions 2 and 3; xz, gzip, bzip2 or
not compressed).

Enough of the format ("R Internals", Serialization Formats) for columns of
numbers, texts, factors and times. Files are not trusted: sizes are compared
with the bytes that are there before memory is asked for, nesting has a bound,
and so has what is unpacked. Everything that is wrong is a DataError.
"""
import bz2
import lzma
import struct
import zlib

import numpy as np

MAX_BYTES = 1 << 30  # unpacked
MAX_DEPTH = 64
MAX_ITEMS = 10000  # of a list

NILVALUE, REFERENCE, ALTREP = 254, 255, 238
NULL, SYMBOL, PAIRLIST, CHARACTERS = 0, 1, 2, 9
LOGICAL, INTEGER, REAL, TEXTS, LIST, EXPRESSIONS = 10, 13, 14, 16, 19, 20
HAS_ATTRIBUTES, HAS_TAG = 0x200, 0x400
NA_INTEGER = -2**31
WRAPPERS = ("wrap_integer", "wrap_logical", "wrap_real", "wrap_string")


class DataError(Exception):
    """A file is not what it should be; the text says where and how."""


class Texts:
    """A vector of texts: `codes` point into `levels`, -1 is NA."""

    def __init__(self, codes, levels):
        self.codes, self.levels = codes, levels

    def __len__(self):
        return len(self.codes)

    def __getitem__(self, i):
        code = self.codes[i]
        return None if code < 0 else self.levels[code]


class Value:
    """Anything else: a numpy array or a list, and its attributes."""

    def __init__(self, data, attributes=None):
        self.data, self.attributes = data, attributes or {}


def unpack(data, limit=MAX_BYTES):
    """The bytes of a file without their compression."""
    if data[:6] == b"\xfd7zXZ\x00":
        machine, errors = lzma.LZMADecompressor(), lzma.LZMAError
    elif data[:2] == b"\x1f\x8b":
        machine, errors = zlib.decompressobj(31), zlib.error
    elif data[:3] == b"BZh":
        machine, errors = bz2.BZ2Decompressor(), (OSError, ValueError)
    else:
        return data
    try:
        plain = machine.decompress(data, limit + 1)
    except errors as error:
        raise DataError(f"cannot be unpacked: {error}") from None
    if len(plain) > limit:
        raise DataError(f"unpacks to more than {limit} bytes")
    if not machine.eof:
        raise DataError("compressed data end too early")
    return plain


class Reader:
    """One pass over serialised objects."""

    def __init__(self, data):
        self.data, self.at = data, 0
        self.symbols = []

    def take(self, n):
        """The place of the next n bytes."""
        begin = self.at
        if n > len(self.data) - begin:
            raise DataError(f"ends at byte {len(self.data)}, want {n} more "
                            f"after byte {begin}")
        self.at = begin + n
        return begin

    def integer(self):
        return struct.unpack_from(">i", self.data, self.take(4))[0]

    def count(self, size):
        """How many values of `size` bytes or more follow."""
        n = self.integer()
        if n == -1:
            high, low = struct.unpack_from(">II", self.data, self.take(8))
            n = (high << 32) + low
        if n < 0 or n * size > len(self.data) - self.at:
            raise DataError(f"a vector of {n} values at byte {self.at} in "
                            f"{len(self.data)} bytes")
        return n

    def numbers(self, kind, dtype):
        width = np.dtype(kind).itemsize
        n = self.count(width)
        at = self.take(n * width)
        return np.frombuffer(self.data, kind, n, at).astype(dtype)

    def texts(self):
        """Most of a file: a text is flags, a length and bytes."""
        n = self.count(8)
        codes, known = np.empty(n, np.int32), {}
        data, at, end = self.data, self.at, len(self.data)
        header = struct.Struct(">Ii").unpack_from
        for i in range(n):
            if at + 8 > end:
                raise DataError(f"ends at byte {end} in a vector of texts")
            flags, length = header(data, at)
            if flags & 255 != CHARACTERS or flags & HAS_ATTRIBUTES:
                raise DataError(f"no text at byte {at}, but type "
                                f"{flags & 255}")
            at += 8
            if length < 0:
                codes[i] = -1
                continue
            if length > end - at:
                raise DataError(f"a text of {length} bytes at byte {at} in "
                                f"{end} bytes")
            codes[i] = known.setdefault(data[at:at + length], len(known))
            at += length
        self.at = at
        return Texts(codes, [text.decode("utf-8", "replace")
                             for text in known])

    def pairs(self, flags, depth):
        """A chain of (name, value); attributes are one."""
        found = []
        while flags & 255 == PAIRLIST:
            if len(found) == MAX_ITEMS:
                raise DataError(f"more than {MAX_ITEMS} pairs at byte "
                                f"{self.at}")
            if flags & HAS_ATTRIBUTES:
                self.item(depth + 1)
            name = self.item(depth + 1) if flags & HAS_TAG else ""
            found.append((name if isinstance(name, str) else "",
                          self.item(depth + 1)))
            flags = self.integer()
        if flags & 255 not in (NILVALUE, NULL):  # (a . b) ends in a value
            self.at -= 4
            found.append(("", self.item(depth + 1)))
        return found

    def items(self, depth):
        n = self.count(4)
        if n > MAX_ITEMS:
            raise DataError(f"a list of {n} at byte {self.at}, want at most "
                            f"{MAX_ITEMS}")
        return [self.item(depth + 1) for _ in range(n)]

    def symbol(self):
        flags, n = struct.unpack_from(">Ii", self.data, self.take(8))
        if flags & 255 != CHARACTERS or n < 0:
            raise DataError(f"no name at byte {self.at}")
        at = self.take(n)
        self.symbols.append(self.data[at:at + n].decode("utf-8", "replace"))
        return self.symbols[-1]

    def reference(self, flags):
        index = flags >> 8 or self.integer()
        if not 1 <= index <= len(self.symbols):
            raise DataError(f"reference {index} at byte {self.at}, of "
                            f"{len(self.symbols)}")
        return self.symbols[index - 1]

    def compact(self, depth):
        """A vector that R keeps in another form (ALTREP)."""
        kind, state = self.item(depth + 1), self.item(depth + 1)
        attributes = self.attributes(True, depth)
        name = kind[0][1] if isinstance(kind, list) else None
        if isinstance(state, Value):
            state = state.data
        if name in ("compact_intseq", "compact_realseq"):
            return Value(sequence(state), attributes)
        if name not in WRAPPERS or not isinstance(state, list) or not state:
            raise DataError(f"a vector of class {name!r} at byte {self.at}, "
                            f"which is not known here")
        inner = state[0][1] if isinstance(state[0], tuple) else state[0]
        if isinstance(inner, Value):
            return Value(inner.data, {**inner.attributes, **attributes})
        return inner

    def attributes(self, is_there, depth):
        pairs = self.item(depth + 1) if is_there else None
        return dict(pairs) if isinstance(pairs, list) else {}

    def item(self, depth=0):
        """The next object."""
        if depth > MAX_DEPTH:
            raise DataError(f"nested more than {MAX_DEPTH} deep at byte "
                            f"{self.at}")
        flags = self.integer()
        kind = flags & 255
        if kind in (NILVALUE, NULL):
            return None
        if kind == REFERENCE:
            return self.reference(flags)
        if kind == SYMBOL:
            return self.symbol()
        if kind == ALTREP:
            return self.compact(depth)
        if kind == PAIRLIST:
            return self.pairs(flags, depth)
        if kind == TEXTS:
            texts = self.texts()
            self.attributes(flags & HAS_ATTRIBUTES, depth)
            return texts
        if kind in (LOGICAL, INTEGER):
            data = self.numbers(">i4", np.int32)
        elif kind == REAL:
            data = self.numbers(">f8", np.float64)
        elif kind in (LIST, EXPRESSIONS):
            data = self.items(depth)
        else:
            raise DataError(f"an object of type {kind} at byte {self.at}, "
                            f"want vectors and lists")
        return Value(data, self.attributes(flags & HAS_ATTRIBUTES, depth))


def sequence(state):
    """first, first + step, ... of R's [how many, first, step]."""
    if not isinstance(state, np.ndarray) or state.shape != (3,) \
            or not np.isfinite(state).all():
        raise DataError("a sequence that is not [how many, first, step]")
    n, first, step = state.tolist()
    if not 0 <= n <= MAX_BYTES // 8:
        raise DataError(f"a sequence of {n:.0f} numbers")
    return first + step * np.arange(int(n), dtype=np.float64)


def objects(data):
    """{name: object} of a file's bytes."""
    data = unpack(data)
    if data[:5] not in (b"RDX2\n", b"RDX3\n"):
        raise DataError(f"begins with {data[:5]!r}, want RDX2 or RDX3")
    reader = Reader(data)
    reader.at = 5
    if data[5:7] != b"X\n":
        raise DataError(f"is serialised as {data[5:7]!r}, want XDR")
    reader.at = 7
    version, _, _ = (reader.integer() for _ in range(3))
    if version not in (2, 3):
        raise DataError(f"version {version}, want 2 or 3")
    if version == 3:  # the name of an encoding
        reader.take(reader.count(1))
    found = reader.item()
    if not isinstance(found, list):
        raise DataError("holds no named objects")
    return {name: value for name, value in found}


def column(value):
    """A column as Texts or as float64 with NaN for NA."""
    if isinstance(value, Texts):
        return value
    if not isinstance(value, Value) or not isinstance(value.data, np.ndarray):
        raise DataError("a column is neither numbers nor texts")
    levels = value.attributes.get("levels")
    if isinstance(levels, Texts):  # a factor: 1, 2, ...
        codes = np.where(value.data > 0, value.data - 1, -1).astype(np.int32)
        if codes.size and codes.max() >= len(levels):
            raise DataError(f"a factor has value {codes.max() + 1} of "
                            f"{len(levels)}")
        return Texts(codes, [levels[i] for i in range(len(levels))])
    numbers = value.data.astype(np.float64)
    if value.data.dtype == np.int32:
        numbers[value.data == NA_INTEGER] = np.nan
    return numbers


def data_frame(data):
    """{name: column} of the first data frame in a file's bytes."""
    for name, value in objects(data).items():
        names = isinstance(value, Value) and value.attributes.get("names")
        if not isinstance(names, Texts) or not isinstance(value.data, list):
            continue
        if len(names) != len(value.data):
            raise DataError(f"{name}: {len(value.data)} columns with "
                            f"{len(names)} names")
        columns = {}
        for i, part in enumerate(value.data):
            try:
                columns[names[i]] = column(part)
            except DataError as error:
                raise DataError(f"{names[i]}: {error}") from None
        sizes = {len(part) for part in columns.values()}
        if len(sizes) != 1:
            raise DataError(f"{name}: columns of {sorted(sizes)} rows")
        return columns
    raise DataError("holds no data frame")
