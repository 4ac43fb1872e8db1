# SPDX-License-Identifier: Apache-2.0
"""Embedding tables within a byte budget: any 64-bit ids, rows whose chunks
come and go by what they are worth while the table trains."""
from __future__ import annotations

import dataclasses
import enum
from typing import Any, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _args, _lib, _np, _pages
from ._handle import Handle
from ._lib import byref, c_uint32, c_uint64, lib
from ._np import BytesLike, F32Array
from .context import Context, lease_of
from .model import Model
from .weights import File, opened

SECRET_BYTES = 16
# Smaller budgets are not worth a page of 2 MiB that is half empty.
HUGE_BUDGET = 64 << 20
ALL_TABLES = 2**32 - 1  # FL_AUTO


class BagMode(enum.IntEnum):
    """What becomes of a bag's rows."""

    SUM = 1
    MEAN = 2


class EmbeddingPrecision(enum.IntEnum):
    """How values are kept."""

    F32 = 1
    BF16 = 2
    I8 = 3


class EmbeddingOptimiser(enum.IntEnum):
    """How rows are updated."""

    SGD = 1
    ROW_ADAGRAD = 2


def whole64(value: npt.ArrayLike, name: str) -> npt.NDArray[np.uint64]:
    """Return integers as 64 bits, signed ones by their bits: PyTorch's ids
    are signed, and any id will do."""
    array = _np.plain(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: got dtype {array.dtype}, want integers")
    wide = np.int64 if array.dtype.kind == "i" else np.uint64
    return np.require(array, wide, ["C", "A"]).view(np.uint64)


class Bags:
    """Ids in bags, as torch.nn.EmbeddingBag takes them: a row of them with
    `offsets`, where each bag begins, or [bags, ids of each].

    `weights`: of each id, in the shape of ids. `mode`: sum or mean, which is
    by the number of ids; an empty bag is zeros. Arrays of 64-bit integers and
    of float32 are not copied: leave them as they are.
    """

    def __init__(self, ids: npt.ArrayLike,
                 offsets: npt.ArrayLike | None = None, *,
                 weights: npt.ArrayLike | None = None,
                 mode: str | BagMode = "sum") -> None:
        self._ids = whole64(ids, "ids")
        self._offsets = None
        self._weights = None
        self.mode = BagMode(_args.choice(BagMode, mode, "mode"))
        bags = _lib.init(_lib.EmbeddingBags)
        bags.mode = int(self.mode)
        if offsets is None:
            if self._ids.ndim != 2:
                raise ValueError(f"ids: got shape {list(self._ids.shape)}, "
                                 f"want [bags, ids] or one row with offsets")
            self.n_bags = self._ids.shape[0]
        else:
            if self._ids.ndim != 1:
                raise ValueError(f"ids: got shape {list(self._ids.shape)}, "
                                 f"want one row with offsets")
            self._offsets = whole64(offsets, "offsets")
            if self._offsets.ndim != 1:
                raise ValueError(f"offsets: got shape "
                                 f"{list(self._offsets.shape)}, want one row")
            self.n_bags = self._offsets.size
            bags.offsets = _np.u64_pointer(self._offsets)
        if weights is not None:
            self._weights = _np.f32(weights, "weights", self._ids.size)
            bags.weights = _np.f32_pointer(self._weights)
        bags.ids = _np.u64_pointer(self._ids)
        bags.n_ids = self._ids.size
        bags.n_bags = self.n_bags
        self._struct = bags

    def __len__(self) -> int:
        return self.n_bags

    def __repr__(self) -> str:
        return (f"<libfl.Bags {self.n_bags} of {self._ids.size} ids, "
                f"{self.mode.name.lower()}>")


BagsLike = Union[Bags, npt.ArrayLike]


def bags_of(value: BagsLike) -> Bags:
    """Return bags; an array is [bags, ids of each], to be summed."""
    return value if isinstance(value, Bags) else Bags(value)


@dataclasses.dataclass(frozen=True)
class EmbeddingReport:
    """What an adjust did: chunks that went and came, ids that hold nothing
    any more or hold something again."""

    evicted: int
    grown: int
    rows_lost: int
    rows_gained: int
    bytes_moved: int
    blocks_returned: int


@dataclasses.dataclass(frozen=True)
class EmbeddingStatistics:
    """Of a table, or of the whole store. `bytes_used` of `byte_budget` (0:
    none) are values, squares (AdaGrad's), entries, sketch, free and fixed;
    scratch is outside of it. `rows_by_chunks`: rows of 1, 2, 3, 4 chunks.
    `evicted` to `rows_gained`: of all adjusts. `ids_hit` of `ids_asked` by
    forward had a row before."""

    byte_budget: int
    bytes_used: int
    bytes_values: int
    bytes_squares: int
    bytes_entries: int
    bytes_sketch: int
    bytes_free: int
    bytes_fixed: int
    bytes_scratch: int
    rows: int
    chunks: int
    rows_by_chunks: tuple[int, ...]
    steps: int
    adjusts: int
    evicted: int
    grown: int
    rows_lost: int
    rows_gained: int
    ids_asked: int
    ids_hit: int


class EmbeddingTable:
    """One table of a store, which it keeps open. len() is the number of its
    rows: ids that hold a chunk."""

    def __init__(self, store: EmbeddingStore, index: int, dim: int) -> None:
        self._store, self.index, self.dim = store, index, dim

    @property
    def store(self) -> EmbeddingStore:
        return self._store

    def lookup(self, bags: BagsLike, out: F32Array | None = None
               ) -> F32Array:
        """Read [bags, dim]; unknown ids and pruned chunks are zeros. Nothing
        changes: any number of threads may do so, also beside one that
        trains."""
        return self._read(lib.fl_embedding_lookup, bags, out)

    def forward(self, bags: BagsLike, out: F32Array | None = None
                ) -> F32Array:
        """The same in training: new ids get all their chunks while there is
        room."""
        return self._read(lib.fl_embedding_forward, bags, out)

    def _read(self, function: Any, bags: BagsLike, out: F32Array | None
              ) -> F32Array:
        given = bags_of(bags)
        values = _np.output(out, "out", [given.n_bags, self.dim])
        function(self._store._handle, self.index, byref(given._struct),
                 _np.f32_pointer(values))
        return values

    def backward(self, bags: BagsLike, gradient: npt.ArrayLike,
                 rate: float) -> None:
        """Update the rows of these bags by the loss's gradient [bags, dim].
        NotFiniteError: nothing changed."""
        given = bags_of(bags)
        values = _np.f32(gradient, "gradient", given.n_bags * self.dim)
        lib.fl_embedding_backward(
            self._store._handle, self.index, byref(given._struct),
            _np.f32_pointer(values), float(rate))

    def ids(self) -> npt.NDArray[np.uint64]:
        """Return the ids that hold a chunk, in no particular order."""
        found = np.empty(len(self), np.uint64)
        needed = c_uint64()
        lib.fl_embedding_copy_ids(self._store._handle, self.index,
                                  _np.u64_pointer(found), found.size,
                                  byref(needed))
        return found[:needed.value]

    def row(self, id: int) -> tuple[F32Array, int]:
        """Return an id's row, zeros where a chunk is pruned, and which chunks
        are not, as bits. NotFoundError: it holds none."""
        values = np.empty(self.dim, np.float32)
        mask = c_uint32()
        lib.fl_embedding_copy_row(self._store._handle, self.index,
                                  _args.u64(id, "id"),
                                  _np.f32_pointer(values), byref(mask))
        return values, mask.value

    @property
    def statistics(self) -> EmbeddingStatistics:
        return _statistics(_of(self._store._handle, self.index))

    def __len__(self) -> int:
        count: int = lib.fl_embedding_row_count(self._store._handle,
                                                self.index)
        return count

    def __bool__(self) -> bool:
        """An empty table is one."""
        return True

    def __repr__(self) -> str:
        return f"<libfl.EmbeddingTable {self.index}: rows of {self.dim}>"


def _context_for(byte_budget: int) -> Context | None:
    """Where a store has its memory that was given no context."""
    is_large = byte_budget == 0 or byte_budget >= HUGE_BUDGET
    if is_large and _pages.library() is not None:
        return Context(huge_pages=True)
    return None


class EmbeddingStore(Handle):
    """Tables under one budget.

    `byte_budget`: of everything, all tables and what describes them; 0 =
    none. `optimiser`: row_adagrad or sgd. `seed`: of first values and of what
    is sampled. `secret`: 16 bytes that ids are mixed with; drawn when there
    are none. `tombstones`: evicted ids that are remembered for deltas. What
    is None is left to the library.

    Without a context a store of 64 MiB and above, or without a budget, has
    one of its own with huge_pages.
    """

    def __init__(self, *, byte_budget: int = 0,
                 optimiser: str | EmbeddingOptimiser = "row_adagrad",
                 seed: int = 0, secret: BytesLike | None = None,
                 epsilon: float | None = None,
                 initial_square: float | None = None,
                 decay: float | None = None, hysteresis: float | None = None,
                 sample_every: int | None = None, is_global: bool = False,
                 tombstones: int = 0,
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.EmbeddingOptions)
        options.optimiser = _args.choice(EmbeddingOptimiser, optimiser,
                                    "optimiser")
        options.byte_budget = byte_budget
        options.seed = seed
        if secret is not None:
            options.secret, n = _np.data(secret, "secret")
            if n != SECRET_BYTES:
                raise ValueError(f"secret: got {n} bytes, "
                                 f"want {SECRET_BYTES}")
        _fill(options, epsilon=epsilon, initial_square=initial_square,
              decay=decay, hysteresis=hysteresis, sample_every=sample_every)
        options.is_global = int(is_global)
        options.tombstones = tombstones
        pointer, lease = lease_of(context or _context_for(byte_budget))
        self._own(_lib.new(_lib.Embedding, lib.fl_embedding_new, pointer,
                           byref(options)), lib.fl_embedding_free, lease)

    def add_table(self, dim: int, *, chunks: int | None = None,
                  precision: str | EmbeddingPrecision = "f32",
                  sketch_counters: int | None = None,
                  prune_from: int | None = None, share: float | None = None,
                  init_scale: float | None = None,
                  admit_after: int | None = None,
                  keep_for: int | None = None) -> EmbeddingTable:
        """Make a table of rows of `dim` values, cut in `chunks` (1, 2, 4)
        that are kept or pruned on their own.

        `precision`: f32, bf16 or i8. `sketch_counters`: of the sketch that
        ranks ids without a chunk; 0 = they are forgotten. `prune_from`:
        tables of fewer ids are not pruned while there is room. `share`: of
        the budget, relative to other tables. `init_scale`: standard deviation
        of first values. `admit_after`: touches before an id gets chunks.
        `keep_for`: adjusts for which a new row is not pruned.
        """
        options = _lib.init(_lib.EmbeddingTableOptions)
        options.dim = dim
        options.precision = _args.choice(EmbeddingPrecision, precision,
                                    "precision")
        _fill(options, chunks=chunks, sketch_counters=sketch_counters,
              prune_from=prune_from, share=share, init_scale=init_scale,
              admit_after=admit_after, keep_for=keep_for)
        index = c_uint32()
        lib.fl_embedding_add_table(self._handle, byref(options),
                                   byref(index))
        return EmbeddingTable(self, index.value, options.dim)

    @property
    def tables(self) -> tuple[EmbeddingTable, ...]:
        """The tables, in the order in which they were made."""
        count = _of(self._handle, ALL_TABLES).n_tables
        return tuple(EmbeddingTable(self, i, _of(self._handle, i).dim)
                     for i in range(count))

    @property
    def statistics(self) -> EmbeddingStatistics:
        return _statistics(_of(self._handle, ALL_TABLES))

    def adjust(self) -> EmbeddingReport:
        """Give the budget to the chunks that are worth most: every 50..1000
        batches."""
        report = _lib.init(_lib.EmbeddingReport)
        lib.fl_embedding_adjust(self._handle, byref(report))
        return EmbeddingReport(*(
            getattr(report, field.name)
            for field in dataclasses.fields(EmbeddingReport)))

    # ---- saving --------------------------------------------------------

    def save(self, file: File) -> int:
        """Write everything; loaded again, training goes on with the same
        bits. A path's old file stays until the new one is whole. Return the
        new version."""
        return self._save(lib.fl_embedding_save, file)

    def save_delta(self, file: File, since: int) -> int:
        """Write what has changed since version `since`, the last one. Return
        the new version. StaleError: it is another one; NotAllowedError: more
        ids were evicted than `tombstones`."""
        return self._save(lib.fl_embedding_save_delta, file,
                          _args.u64(since, "since"))

    def _save(self, function: Any, file: File, *rest: int) -> int:
        with opened(file, "wb") as stream:
            writer = _lib.writer_of(stream)
            function(self._handle, *rest, byref(writer))
        return self.version

    @classmethod
    def load(cls, file: File, *,
             byte_budget: int = 0,
             context: Context | None = None) -> EmbeddingStore:
        """Make a store of what was saved. `byte_budget`: 0 = the saved one;
        else also what the call itself may take. Huge pages as for a new one."""
        pointer, lease = lease_of(context or _context_for(byte_budget))
        store = cls.__new__(cls)
        with opened(file, "rb") as stream:
            reader = _lib.reader_of(stream)
            handle = _lib.new(_lib.Embedding, lib.fl_embedding_load, pointer,
                              byref(reader),
                              _args.u64(byte_budget, "byte_budget"))
        store._own(handle, lib.fl_embedding_free, lease)
        return store

    def apply_delta(self, file: File) -> int:
        """Change rows as a delta says, and return the version. StaleError:
        it is of another version than this store."""
        with opened(file, "rb") as stream:
            reader = _lib.reader_of(stream)
            lib.fl_embedding_apply_delta(self._handle, byref(reader))
        return self.version

    @property
    def version(self) -> int:
        """What was saved, loaded or reached by a delta last; 0 = nothing."""
        version: int = lib.fl_embedding_version(self._handle)
        return version

    # ---- behind a model ------------------------------------------------

    def attach(self, model: Model,
               tables: EmbeddingTable | Sequence[EmbeddingTable], *,
               rate: float | None = None) -> None:
        """Have the rows of the model's SparseEmbedding here, in one table, or
        in one for each field. `rate`: of the rows; None = that of the step.

        Adjust between steps, in a fit's `progress` for one. Rows are no part
        of the model's weights and checkpoints. The model keeps the store
        until `detach` or its own end.
        """
        options = _lib.init(_lib.EmbeddingAttachOptions)
        if isinstance(tables, EmbeddingTable):
            options.table = self._index_of(tables)
        else:
            indices = np.array([self._index_of(table) for table in tables],
                               np.uint32)
            options.tables = _np.u32_pointer(indices)
            options.n_tables = indices.size
        if rate is not None:
            options.rate = _args.rate(rate)
        lease = model._unseen()
        lib.fl_embedding_attach(self._handle, lease, byref(options))
        lease.rows = self._lease()

    def detach(self, model: Model) -> None:
        """Give the model up: it cannot be trained or scored then."""
        lease = model._unseen()
        lib.fl_embedding_detach(self._handle, lease)
        lease.rows = None

    def _index_of(self, table: EmbeddingTable) -> int:
        if table.store is not self:
            raise ValueError(f"tables: {table!r} is another store's")
        return table.index


def _of(handle: Any, table: int) -> Any:
    """The statistics of a table, or of all, as C has them."""
    statistics = _lib.init(_lib.EmbeddingStatistics)
    lib.fl_embedding_get_statistics(handle, table, byref(statistics))
    return statistics


def _statistics(found: Any) -> EmbeddingStatistics:
    values = {field.name: getattr(found, field.name)
              for field in dataclasses.fields(EmbeddingStatistics)}
    values["rows_by_chunks"] = tuple(found.rows_by_chunks)
    return EmbeddingStatistics(**values)


def _fill(options: Any, **values: Any) -> None:
    """Set what the caller set."""
    for name, value in values.items():
        if value is not None:
            setattr(options, name, value)
