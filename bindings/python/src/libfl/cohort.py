# SPDX-License-Identifier: Apache-2.0
"""Cohorts: groups of clients whose data are alike, found while training."""
from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any, Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _lib, _np, _state
from ._err import EmptyError
from ._handle import Handle
from ._lib import byref, c_double, c_int32, c_size_t, c_uint32, lib
from ._np import BytesLike
from .context import Context, lease_of


class CohortRule(enum.IntEnum):
    """How groups are found; cohort.h has the rules."""

    SKETCH = 1
    AUXO = 2
    LOSS = 3


class CohortEventKind(enum.IntEnum):
    """What to do with the models of `cohort` and `child`; cohort.h says."""

    TRIAL = 1
    KEPT = 2
    AGAIN = 3
    UNDONE = 4
    MOVED = 5
    MERGED = 6
    SPLIT = 7


class CohortPlan(enum.IntEnum):
    """By what participants are shared."""

    SIZE = 1
    EQUAL = 2
    LOSS = 3


@dataclasses.dataclass(frozen=True)
class CohortRoute:
    """A client trains the model of `cohort`, or, if it `chooses`, of the one
    of `probes` with the least loss on its data. With a loss above `limit` ask
    again."""

    cohort: int
    chooses: bool
    limit: float
    probes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CohortMember:
    """What is known of a client. `is_needed`: it should not train before it has
    compared, in an EVALUATE phase, for there are few clients."""

    cohort: int
    other: int | None
    is_unknown: bool
    seen: int
    last: int
    score: float
    is_needed: bool = False


@dataclasses.dataclass(frozen=True)
class CohortInfo:
    """What is known of a cohort; NaN where nothing is yet."""

    is_alive: bool
    rounds: int
    round: int
    sibling: int | None
    unknown: int
    members: int
    loss: float
    deviation: float
    agreement: float
    gap: float


@dataclasses.dataclass(frozen=True)
class CohortEvent:
    """What was decided."""

    kind: CohortEventKind
    round: int
    cohort: int
    child: int
    n_probes: int
    weight: int
    child_weight: int
    win: float
    lump: float


def _some(number: int) -> int | None:
    return None if number == _lib.COHORT_NONE else number


def _u32s(values: Collection[int], name: str) -> Any:
    """For C, with room for one at least."""
    return (c_uint32 * max(len(values), 1))(
        *(_args.u32(value, name) for value in values))


class Sketcher(Handle):
    """Makes the sketches of updates of `n` values that a set with `dim` takes.
    All clients of a job have one `seed`."""

    def __init__(self, n: int, *, seed: int = 0, dim: int = 512,
                 context: Context | None = None) -> None:
        pointer, lease = lease_of(context)
        self._n = _args.u64(n, "n")
        self._own(_lib.new(_lib.Sketcher, lib.fl_sketcher_new, pointer,
                           _args.u64(seed, "seed"), self._n,
                           _args.u32(dim, "dim")),
                  lib.fl_sketcher_free, lease)

    def __call__(self, update: npt.ArrayLike) -> bytes:
        """The bytes of an update: weights after minus weights before."""
        array = _np.f32(update, "update", self._n)
        needed = c_size_t()
        lib.fl_sketcher_write(self._handle, _np.f32_pointer(array), self._n,
                              None, 0, byref(needed))
        out = (_lib.c_uint8 * needed.value)()
        lib.fl_sketcher_write(self._handle, _np.f32_pointer(array), self._n,
                              out, needed.value, byref(needed))
        return bytes(out)


def options_of(rule: str | CohortRule, given: Mapping[str, float | None]
               ) -> Any:
    """fl_cohort_options; None is the default."""
    values = _lib.init(_lib.CohortOptions)
    values.rule = _args.choice(CohortRule, rule, "rule")
    for name, value in given.items():
        if value is not None:
            setattr(values, name, value)
    return values


def member_in(handle: Any, slot: int) -> CohortMember:
    """What a set knows of a client."""
    got = _lib.init(_lib.CohortMember)
    lib.fl_cohort_set_get_member(handle, _args.u32(slot, "slot"), byref(got))
    return CohortMember(got.cohort, _some(got.other), bool(got.is_unknown),
                        got.seen, got.last, got.score, bool(got.is_needed))


def alive_in(handle: Any) -> tuple[int, ...]:
    """Cohorts of a set that are alive."""
    got = _lib.init(_lib.CohortInfo)
    alive = []
    for number in range(int(lib.fl_cohort_set_cap(handle))):
        lib.fl_cohort_set_get_info(handle, number, byref(got))
        if got.is_alive:
            alive.append(number)
    return tuple(alive)


class CohortSet(Handle):
    """Takes what clients tell and says which cohorts there are; models are
    the caller's. `rule`: "sketch", "auxo" or "loss". `key`: 32 bytes that
    authenticate tickets. Options have the names of fl_cohort_options; None is
    the default.
    """

    def __init__(self, rule: str | CohortRule = CohortRule.SKETCH, *,
                 seed: int = 0, job: int = 0, key: BytesLike | None = None,
                 clients: int | None = None, cap: int | None = None,
                 dim: int | None = None, floor: float | None = None,
                 min_members: int | None = None,
                 min_participants: int | None = None,
                 spike: float | None = None, asks_first: bool | None = None,
                 evidence: int | None = None, agreement: float | None = None,
                 gap: float | None = None, reseed: int | None = None,
                 settle: int | None = None, wait: int | None = None,
                 trial_start: int | None = None,
                 trial_length: int | None = None,
                 trial_probes: int | None = None,
                 trial_most: int | None = None,
                 trial_margin: float | None = None,
                 trial_share: float | None = None,
                 trial_sure: float | None = None,
                 trial_win: float | None = None,
                 trial_lump: float | None = None,
                 trial_again: float | None = None,
                 merge: float | None = None, forget: int | None = None,
                 is_published: bool = False, splits: Sequence[int] = (),
                 context: Context | None = None) -> None:
        values = options_of(rule, dict(
            seed=seed, job=job, clients=clients, cap=cap, dim=dim,
            floor=floor, min_members=min_members,
            min_participants=min_participants, spike=spike,
            asks_first=asks_first, evidence=evidence, agreement=agreement,
            gap=gap, reseed=reseed, settle=settle, wait=wait,
            trial_start=trial_start, trial_length=trial_length,
            trial_probes=trial_probes, trial_most=trial_most,
            trial_margin=trial_margin, trial_share=trial_share,
            trial_sure=trial_sure, trial_win=trial_win,
            trial_lump=trial_lump, trial_again=trial_again, merge=merge,
            forget=forget, is_published=is_published))
        kept = _u32s(splits, "splits")
        if len(splits) > 0:
            values.splits = _lib.cast(kept, _lib.U32P)
            values.n_splits = len(splits)
        if key is not None:
            pointer, n = _np.data(key, "key")
            if n != _lib.COHORT_KEY_BYTES:
                raise ValueError(f"key: got {n} bytes, want "
                                 f"{_lib.COHORT_KEY_BYTES}")
            values.key = pointer
        self._n_feature = (int(values.dim) if values.rule == CohortRule.AUXO
                           else None)
        owner, lease = lease_of(context)
        self._own(_lib.new(_lib.CohortSet, lib.fl_cohort_set_new, owner,
                           byref(values)), lib.fl_cohort_set_free, lease)

    # ---- clients -----------------------------------------------------------

    def join(self, client: int, *, round: int = 0,
             ticket: BytesLike | None = None) -> int:
        """Find or add a client, by a number that names it; return its slot.
        A ticket that does not count (forged, of another client or job, too
        old) makes no error but a newcomer: member(slot).last is 0.
        """
        slot, counts = c_uint32(), c_int32()
        pointer, n = (None, 0) if ticket is None else _np.data(ticket,
                                                               "ticket")
        lib.fl_cohort_set_join(self._handle, _args.u64(client, "client"),
                               _args.u32(round, "round"), pointer, n,
                               byref(slot), byref(counts))
        return slot.value

    def leave(self, slot: int) -> None:
        """Forget a client."""
        lib.fl_cohort_set_leave(self._handle, _args.u32(slot, "slot"))

    def find(self, client: int) -> int:
        """The slot of a client that has joined."""
        slot = c_uint32()
        lib.fl_cohort_set_find(self._handle, _args.u64(client, "client"),
                               byref(slot))
        return slot.value

    def ticket(self, slot: int) -> bytes:
        """What the client keeps, and brings when it joins again."""
        out = (_lib.c_uint8 * _lib.COHORT_TICKET_BYTES)()
        needed = c_size_t()
        lib.fl_cohort_set_copy_ticket(self._handle, _args.u32(slot, "slot"),
                                      out, len(out), byref(needed))
        return bytes(out)

    def member(self, slot: int) -> CohortMember:
        return member_in(self._handle, slot)

    @property
    def n_clients(self) -> int:
        return int(lib.fl_cohort_set_client_count(self._handle))

    # ---- rounds ------------------------------------------------------------

    def route(self, slot: int, round: int, loss: float = math.nan
              ) -> CohortRoute:
        """Which models the client needs; `loss` is that of its cohort's
        model on its data, once it is known."""
        got = _lib.init(_lib.CohortRoute)
        lib.fl_cohort_set_route(self._handle, _args.u32(slot, "slot"),
                                _args.u32(round, "round"), loss, byref(got))
        return CohortRoute(got.cohort, bool(got.chooses), got.limit,
                           tuple(got.probes[:got.n_probes]))

    def report(self, slot: int, cohort: int, round: int, *,
               loss: float | None = None, sketch: BytesLike | None = None,
               feature: npt.ArrayLike | None = None,
               probes: Mapping[int, float] | None = None) -> None:
        """Take what a client tells: `loss` None = it has not trained; `probes`
        are losses of models by their cohorts."""
        values = _lib.init(_lib.CohortReport)
        values.cohort = _args.u32(cohort, "cohort")
        values.round = _args.u32(round, "round")
        values.has_trained = loss is not None
        if loss is not None:
            values.loss = loss
        if sketch is not None:
            values.sketch, values.sketch_size = _np.data(sketch, "sketch")
        if feature is not None:
            array = _np.f32(feature, "feature", self._n_feature)
            values.feature = _np.f32_pointer(array)
        told = dict(probes or {})
        cohorts = _u32s(told, "probes")
        losses = (c_double * max(len(told), 1))(*told.values())
        if told:
            values.n_probes = len(told)
            values.probes = _lib.cast(cohorts, _lib.U32P)
            values.losses = _lib.cast(losses, _lib.F64P)
        lib.fl_cohort_set_report(self._handle, _args.u32(slot, "slot"),
                                 byref(values))

    def end_round(self, cohort: int, round: int) -> None:
        """End the round of one cohort."""
        lib.fl_cohort_set_end_round(self._handle,
                                    _args.u32(cohort, "cohort"),
                                    _args.u32(round, "round"))

    def decide(self) -> list[CohortEvent]:
        """Draw the conclusions of the rounds that have ended."""
        lib.fl_cohort_set_decide(self._handle)
        return list(self._events())

    def _events(self) -> Iterator[CohortEvent]:
        got = _lib.init(_lib.CohortEvent)
        while True:
            try:
                lib.fl_cohort_set_poll(self._handle, byref(got))
            except EmptyError:
                return
            yield CohortEvent(CohortEventKind(got.kind), got.round,
                              got.cohort, got.child, got.n_probes,
                              got.weight, got.child_weight, got.win, got.lump)

    # ---- cohorts -----------------------------------------------------------

    @property
    def cap(self) -> int:
        """Numbers of cohorts are below."""
        return int(lib.fl_cohort_set_cap(self._handle))

    @property
    def cohorts(self) -> tuple[int, ...]:
        """Those that are alive."""
        return alive_in(self._handle)

    def info(self, cohort: int) -> CohortInfo:
        got = _lib.init(_lib.CohortInfo)
        lib.fl_cohort_set_get_info(self._handle, _args.u32(cohort, "cohort"),
                                   byref(got))
        return CohortInfo(bool(got.is_alive), got.rounds, got.round,
                          _some(got.sibling), got.unknown, got.members,
                          got.loss, got.deviation, got.agreement, got.gap)

    def plan(self, total: int, by: str | CohortPlan = CohortPlan.SIZE
             ) -> tuple[int, ...]:
        """Share `total` participants among the cohorts, by number."""
        counts = (c_uint32 * self.cap)()
        lib.fl_cohort_set_plan(self._handle, _args.u32(total, "total"),
                               _args.choice(CohortPlan, by, "by"), counts,
                               len(counts))
        return tuple(counts)

    def pick(self, cohort: int, round: int, want: int,
             online: npt.ArrayLike | None = None) -> tuple[int, ...]:
        """Draw members of a cohort; `online` is true for slots that are."""
        values = _lib.init(_lib.CohortPick)
        values.cohort = _args.u32(cohort, "cohort")
        values.round = _args.u32(round, "round")
        values.want = min(_args.u32(want, "want"), self.n_clients)
        bits = None
        if online is not None:
            bits = np.packbits(np.asarray(online, dtype=bool),
                               bitorder="little")
            values.online = _lib.cast(bits.ctypes.data, _lib.U8P)
            values.n_bytes = bits.size
        room = min(values.want, self.n_clients)
        slots, n = (c_uint32 * max(room, 1))(), c_uint32()
        lib.fl_cohort_set_pick(self._handle, byref(values), slots, byref(n))
        return tuple(slots[:n.value])

    # ---- state -------------------------------------------------------------

    def save(self) -> bytes:
        return _state.save(lib.fl_cohort_set_save, self._handle, None)

    def load(self, state: bytes) -> None:
        """Take back what `save` gave, with the same options."""
        _state.load(lib.fl_cohort_set_load, self._handle,
                    bytes(memoryview(state)))
