# SPDX-License-Identifier: Apache-2.0
"""Server: the aggregator, without sockets, threads or clock.

The host names each connection by a number (`peer`), moves bytes (`recv`,
`send`), passes time (`tick`) and reads events (`events`). What a peer does
wrong is an event, never an exception.
"""
from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any, Iterator, Mapping

from . import _args, _lib, _np, _state, enrolment as _enrolment, protocol
from . import cohort as _cohort
from ._err import EmptyError, NotFoundError
from ._handle import Handle
from ._lib import byref, c_uint32, c_uint64, lib
from ._np import BytesLike, F32Array
from .cohort import (CohortEventKind, CohortMember, CohortPlan,
                     CohortRule)
from .compress import Codec, CodecOptions, codec_options
from .context import Context, lease_of
from .enrolment import Allowance, EnrolFunction, Enrolment
from .freeze import FreezeCriterion, FreezeReason, options_of
from .model import Model
from .optimisers import Constant, Schedule, schedule_fields
from .protocol import RejectReason
from .selection import Selection
from .slices import SliceServer
from .store import Store
from .strategy import StrategyOptions


class Weighting(enum.IntEnum):
    """What an update counts: its samples (FedAvg), or the same for all."""

    SAMPLES = 1
    UNIFORM = 2


class ScaleMode(enum.IntEnum):
    """Norms are exchanged each round, or announced with the plan (THC)."""

    EXCHANGED = 1
    PUBLIC = 2


class CohortSketches(enum.IntEnum):
    """What updates of a job with cohorts are compared by: values as they came
    (THC), or decoded ones; AUTO: the first where it can be."""

    AUTO = 0
    LANES = 1
    FLOATS = 2


class CohortPace(enum.IntEnum):
    """How the rounds of cohorts go on: all together, or each by itself, so
    that one whose clients are slow holds nobody up."""

    TOGETHER = 0
    APART = 1


class ServerEventKind(enum.IntEnum):
    """What happened on a server; see Server.events."""

    CLIENT_JOINED = 1
    CLIENT_RETURNED = 2
    PEER_REJECTED = 3
    ROUND_STARTED = 4
    SCALE_AGREED = 5
    UPDATE_ACCEPTED = 6
    CLIENT_LOST = 7
    ROUND_FINISHED = 8
    ROUND_ABORTED = 9
    EVALUATED = 10
    JOB_FINISHED = 11
    FREEZE_CHANGED = 12
    SEGMENT_UNCOVERED = 13
    FREEZE_EVALUATED = 16
    FREEZE_BOOTED = 17
    STORE_FAILED = 14
    COHORT_CHANGED = 15
    CLIENT_BANNED = 20
    CLIENT_LEFT = 21
    SLICES_DROPPED = 24


@dataclasses.dataclass(frozen=True)
class ServerEvent:
    """`round` 0 = none, `peer` None = none, `client_id` "" = unknown, `loss`
    NaN = unknown. Which of the other fields are set depends on the kind;
    modules below `first_active` are frozen, `cohort` None = all. Of changed
    cohorts, `count` comparisons decided, with `win` and `lump`.
    FREEZE_EVALUATED has what FreezeEvent has: `raw` is the median of the
    round's reports, `value` what is compared with `threshold`."""

    kind: ServerEventKind
    job: int
    round: int
    peer: int | None
    client_id: str
    reason: RejectReason
    text: str
    model_version: int
    selected: int
    accepted: int
    samples: int
    loss: float
    correct: int
    count: int
    first_active: int = 0
    plan_version: int = 0
    freeze_reason: FreezeReason = FreezeReason.NONE
    module: int = 0
    below: int = 0
    value: float = math.nan
    threshold: float = math.nan
    raw: float = math.nan
    cohort: int | None = None
    child: int | None = None
    change: CohortEventKind | None = None
    win: float = 0.0
    lump: float = 0.0


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """`round` is the one that runs, from 1; 0 = not begun. `model_version` 0
    = the initial model. Modules below `first_active` are frozen;
    `bytes_saved` is how much longer the updates counted would have been."""

    is_finished: bool
    round: int
    rounds: int
    model_version: int
    n_weights: int
    clients: int
    selected: int
    accepted: int
    first_active: int = 0
    bytes_saved: int = 0
    is_paused: bool = False


@dataclasses.dataclass(frozen=True)
class ClientAccuracy:
    """Accuracy of clients one by one, after the evaluation of `round`: each
    counts the same. `worst`: mean of the worst tenth; `jain`: Jain's index, 1 =
    all equal; `quantiles`: the least, of 10 to 90 %, the greatest."""

    clients: int
    round: int
    mean: float
    worst: float
    jain: float
    quantiles: tuple[float, ...]


class Job:
    """One job of a server; it is the server's and lives as long."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self.number = number

    @property
    def status(self) -> JobStatus:
        status = _lib.init(_lib.JobStatus)
        lib.fl_server_get_status(self._server._handle, self.number,
                                 byref(status))
        return JobStatus(bool(status.is_finished), status.round,
                         status.rounds, status.model_version,
                         status.n_weights, status.clients, status.selected,
                         status.accepted, status.first_active,
                         status.bytes_saved, bool(status.is_paused))

    def copy_weights(self, out: F32Array | None = None
                     ) -> tuple[F32Array, int]:
        """Return the canonical model, what clients hold bit for bit, and
        its version."""
        weights = _np.output(out, "out", [self.status.n_weights])
        version = c_uint64()
        lib.fl_server_copy_weights(self._server._handle, self.number,
                                   _np.f32_pointer(weights), weights.size,
                                   byref(version))
        return weights, version.value

    @property
    def accuracy(self) -> ClientAccuracy:
        got = _lib.init(_lib.ClientAccuracy)
        lib.fl_server_get_accuracy(self._server._handle, self.number,
                                   byref(got))
        return ClientAccuracy(got.clients, got.round, got.mean, got.worst,
                              got.jain, tuple(got.quantiles))

    def _cohorts(self) -> Any:
        cohorts = _lib.CohortSet()
        lib.fl_server_get_cohorts(self._server._handle, self.number,
                                  byref(cohorts))
        return cohorts

    @property
    def cohorts(self) -> tuple[int, ...]:
        """Cohorts that are alive, in a job that has some."""
        return _cohort.alive_in(self._cohorts())

    def member(self, client_id: str) -> CohortMember:
        """Where a client belongs."""
        slot = c_uint32()
        lib.fl_server_find_member(self._server._handle, self.number,
                                  _args.c_text(client_id, "client_id"),
                                  byref(slot))
        return _cohort.member_in(self._cohorts(), slot.value)

    def copy_cohort(self, cohort: int, out: F32Array | None = None
                    ) -> tuple[F32Array, int]:
        """Return a cohort's model and its version."""
        weights = _np.output(out, "out", [self.status.n_weights])
        version = c_uint64()
        lib.fl_server_copy_cohort(self._server._handle, self.number,
                                  _args.u32(cohort, "cohort"),
                                  _np.f32_pointer(weights), weights.size,
                                  byref(version))
        return weights, version.value

    def attach_slices(self, slices: SliceServer | None) -> None:
        """Have the job serve these slices beside its dense model, or no more.
        Before the first round, or right after a server was made of its
        `state`; the job keeps them."""
        lease = self._server._handle
        if slices is None:
            lib.fl_server_attach_slices(lease, self.number, None)
            return
        lib.fl_server_attach_slices(lease, self.number, slices._handle)
        lease.keep += (slices._lease(),)

    def forget(self, client_id: str) -> None:
        """Forget a client, at the latest when the round that it takes part in
        is over (event CLIENT_LEFT). What it gave stays."""
        lib.fl_server_forget(self._server._handle, self.number,
                             _args.c_text(client_id, "client_id"))

    def stop(self) -> None:
        """End the job after the running round."""
        lib.fl_server_stop_job(self._server._handle, self.number)

    def pause(self) -> None:
        """Let no further round begin; the running one goes on to its end."""
        lib.fl_server_pause_job(self._server._handle, self.number)

    def resume(self) -> None:
        """Let rounds begin again."""
        lib.fl_server_resume_job(self._server._handle, self.number)

    def abort_round(self) -> None:
        """Give up the running round; it is tried again."""
        lib.fl_server_abort_round(self._server._handle, self.number)

    def __repr__(self) -> str:
        return f"Job({self.number}, {self.status})"


def _open(context: Any, options: Any) -> Any:
    """What the options' store has, or a new server."""
    if options.store:
        try:
            return _lib.new(_lib.Server, lib.fl_server_recover, context,
                            byref(options))
        except NotFoundError:
            pass
    return _lib.new(_lib.Server, lib.fl_server_new, context, byref(options))


def _some(number: int) -> int | None:
    return None if number == _lib.COHORT_NONE else number


class Server(Handle):
    """An aggregator that holds any number of jobs. None leaves a limit to
    the library. `state` is what an earlier server's `save` returned.

    With a `store` nothing is sent before it is durable, and a new server goes
    on from what the store has (`jobs` says whether there was something).
    Acknowledgements are held up to `commit_window` seconds for others to share
    their commit. While commits fail (events STORE_FAILED) nothing is sent.

    `enrolment` says who may take part; with an `enrol` function those for
    whose key and id it returns True. `server_key`: the public key that clients
    pin. `allowance`: how much a peer may send."""

    def __init__(self, *, max_peers: int | None = None,
                 max_clients: int | None = None,
                 max_control_size: int | None = None,
                 chunk_size: int | None = None,
                 staging_cap: int | None = None, state: bytes | None = None,
                 store: Store | None = None, commit_window: float = 0.0,
                 enrolment: Enrolment | str = Enrolment.OPEN,
                 enrol: EnrolFunction | None = None,
                 server_key: BytesLike | None = None,
                 allowance: Allowance = Allowance(),
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.ServerOptions)
        for name, value in (("max_peers", max_peers),
                            ("max_clients", max_clients),
                            ("max_control_size", max_control_size),
                            ("chunk_size", chunk_size),
                            ("staging_cap", staging_cap)):
            if value is not None:
                setattr(options, name, value)
        pointer, lease = lease_of(context)
        kept = None if store is None else store._lease()
        if kept is not None:
            options.store = kept.pointer
        options.commit_window_ns = protocol.to_ns(commit_window,
                                                  "commit_window")
        hook = _enrolment.fill(options, enrolment, enrol, server_key,
                               allowance)
        if state is None:
            server = _open(pointer, options)
        else:
            server = _state.restore(_lib.Server, lib.fl_server_restore,
                                    pointer, options,
                                    bytes(memoryview(state)))
        self._context = pointer
        self._functions: list[Any] = []
        self._own(server, lib.fl_server_free, lease, kept, hook)

    def add_job(self, model: Model, *, name: str = "default",
                rounds: int = 10,
                codec: CodecOptions | Codec | str = Codec.THC, seed: int = 0,
                participants: int = 0, min_participants: int = 1,
                min_clients: int = 1, over_selection: float = 1.0,
                weighting: Weighting = Weighting.SAMPLES,
                scale_mode: ScaleMode = ScaleMode.EXCHANGED,
                weight_cap: int = 0, epochs: int = 1, batch_size: int = 32,
                learning_rate: float = 0.05, schedule: Schedule = Constant(),
                server_learning_rate: float = 1.0,
                server_momentum: float = 0.0, evaluate_every: int = 0,
                norm_deadline: float = 60.0, update_deadline: float = 600.0,
                evaluate_deadline: float = 60.0, return_grace: float = 10.0,
                retry_pause: float = 5.0, steps_kept: int = 8,
                error_feedback: bool = False,
                feedback_decay: float = 0.5, min_cover: int = 1,
                freeze: FreezeCriterion | str | Mapping[str, Any] | None = None,
                cohorts: CohortRule | str | Mapping[str, Any] | None = None,
                cohort_sketches: CohortSketches | str = CohortSketches.AUTO,
                cohort_probed: int = 40,
                strategy: StrategyOptions | None = None,
                selection: Selection | None = None,
                demands: protocol.Condition = protocol.Condition.NONE,
                checkin: float = 0.0, buffer: int = 0,
                buffer_staleness: int = 16,
                max_samples: int = 1 << 40,
                cohort_pace: CohortPace | str = CohortPace.TOGETHER,
                cohort_share: CohortPlan | str = CohortPlan.SIZE) -> Job:
        """Add a job that trains a copy of `model`.

        `participants` updates are wanted per round (0 = of all clients that
        are there), `over_selection` times as many are asked. Deadlines and
        pauses are in seconds. With `error_feedback` clients send what an
        encoding has lost with their next update. `min_cover` clients of a
        round should train everything that is not frozen, where others can
        afford less (Client's max_depth). `freeze`: a criterion, or options of
        Freeze such as {"criterion": "fixed", "fixed": [(round, modules)]}.
        `schedule`: how the clients' rate changes, with rounds for updates, as
        Cosine(rounds). `cohorts`: a rule, or options of CohortSet such as
        {"rule": "sketch", "cap": 4}; then `cohort_probed` clients tell losses
        before a round without training, and `cohort_pace` "apart" lets each
        cohort begin its next round when its own clients are there, with its
        `cohort_share` of `participants`. `strategy`: what becomes of the
        updates, as FedAdam(rate=.05) or TrimmedMean(). `selection`: whom a
        round asks, as PowerOfChoice() or Oort(). Clients are asked only while
        they have all of `demands`; those who are not needed are told to come
        back after `checkin` seconds and more. `buffer`: a round ends with so
        many updates while other clients go on (FedBuff); those more than
        `buffer_staleness` versions old are refused, and so are clients that
        claim more than `max_samples`. See fl_job_options for every setting.
        """
        compressor = codec_options(codec)._struct()
        options = _lib.init(_lib.JobOptions)
        options.name = _args.c_text(name, "name")
        options.codec = _lib.pointer(compressor)
        plain = {
            "rounds": rounds, "seed": seed, "participants": participants,
            "min_participants": min_participants, "min_clients": min_clients,
            "over_selection": over_selection, "weighting": int(weighting),
            "scale_mode": int(scale_mode), "weight_cap": weight_cap,
            "epochs": epochs, "batch_size": batch_size,
            "learning_rate": learning_rate,
            "server_learning_rate": server_learning_rate,
            "server_momentum": server_momentum,
            "evaluate_every": evaluate_every, "steps_kept": steps_kept,
            "error_feedback": int(error_feedback),
            "feedback_decay": feedback_decay, "min_cover": min_cover,
            "cohort_sketches": _args.choice(CohortSketches, cohort_sketches,
                                            "cohort_sketches"),
            "cohort_pace": _args.choice(CohortPace, cohort_pace,
                                        "cohort_pace"),
            "cohort_share": _args.choice(CohortPlan, cohort_share,
                                         "cohort_share"),
            "max_samples": max_samples,
            "cohort_probed": cohort_probed, "demands": int(demands),
            "buffer": buffer, "buffer_staleness": buffer_staleness,
            **{"rate_" + field: value
               for field, value in schedule_fields(schedule).items()}}
        seconds = {
            "norm_deadline": norm_deadline,
            "update_deadline": update_deadline,
            "evaluate_deadline": evaluate_deadline,
            "return_grace": return_grace, "retry_pause": retry_pause,
            "checkin": checkin}
        for field, value in plain.items():
            setattr(options, field, value)
        kept: list[Any] = []
        if freeze is not None:
            given = (freeze if isinstance(freeze, Mapping)
                     else {"criterion": freeze})
            freezing, kept = options_of(**given)
            kept.append(freezing)
            options.freeze = _lib.pointer(freezing)
        if cohorts is not None:
            given = dict(cohorts if isinstance(cohorts, Mapping)
                         else {"rule": cohorts})
            grouping = _cohort.options_of(given.pop("rule", CohortRule.SKETCH),
                                         given)
            kept.append(grouping)
            options.cohorts = _lib.pointer(grouping)
        if strategy is not None:
            rule, functions = strategy._struct()
            kept.append(rule)
            # Called for as long as the job lives.
            self._functions += functions
            options.strategy = _lib.address(_lib.pointer(rule))
        if selection is not None:
            chooser, functions = selection._struct()
            kept.append(chooser)
            self._functions += functions
            options.selection = _lib.address(_lib.pointer(chooser))
        for field, duration in seconds.items():
            setattr(options, field + "_ns", protocol.to_ns(duration, field))
        number = c_uint32()
        lib.fl_server_add_job(self._handle, model._handle, byref(options),
                              byref(number))
        del kept
        return Job(self, number.value)

    @property
    def jobs(self) -> list[Job]:
        """All jobs, restored ones included."""
        return [Job(self, number)
                for number in range(lib.fl_server_job_count(self._handle))]

    def recv(self, peer: int, data: BytesLike) -> None:
        """Take bytes that a peer sent, in any cut. Raises what `enrol` raised;
        it may not use this server."""
        lease = self._handle
        lease.is_busy = True
        try:
            lib.fl_server_recv(lease, _args.u64(peer, "peer"),
                               *_np.data(data, "data"))
        finally:
            lease.is_busy = False
            del lease  # a traceback would keep it longer

    def send(self, peer: int) -> bytes:
        """Take the next bytes for a peer, about a chunk at most; b"" =
        nothing to send."""
        return _lib.take_bytes(lib.fl_server_send, self._handle,
                               _args.u64(peer, "peer"))

    def ready(self) -> Iterator[int]:
        """Go once over the peers that have something to be sent."""
        peer = c_uint64(protocol.NEVER)
        while True:
            try:
                lib.fl_server_next_ready(self._handle, byref(peer))
            except EmptyError:
                return
            yield peer.value

    def wants_close(self, peer: int) -> bool:
        """True when the peer was rejected: send what is left, then close."""
        return bool(lib.fl_server_wants_close(self._handle,
                                              _args.u64(peer, "peer")))

    def has_unsent(self, peer: int) -> bool:
        """True when something is to be sent to the peer, though perhaps not
        before a commit of the store, until which `send` gives nothing."""
        return bool(lib.fl_server_has_unsent(self._handle,
                                             _args.u64(peer, "peer")))

    def disconnected(self, peer: int) -> None:
        """Say that a peer's connection is gone."""
        lib.fl_server_disconnected(self._handle, _args.u64(peer, "peer"))

    def tick(self, now_ns: int) -> None:
        """Advance to a monotonic time."""
        lib.fl_server_tick(self._handle, _args.u64(now_ns, "now_ns"))

    def next_timeout(self) -> int | None:
        """When tick wants to be called at the latest; None = no timer."""
        deadline = c_uint64()
        lib.fl_server_next_timeout(self._handle, byref(deadline))
        return None if deadline.value == protocol.NEVER else deadline.value

    def poll(self) -> ServerEvent | None:
        """Take the next event; None when there is none."""
        event = _lib.init(_lib.ServerEvent)
        try:
            lib.fl_server_poll(self._handle, byref(event))
        except EmptyError:
            return None
        peer = None if event.peer == protocol.NEVER else event.peer
        return ServerEvent(
            ServerEventKind(event.kind), event.job, event.round, peer,
            _lib.text(event.client_id), RejectReason(event.reason),
            _lib.text(event.text), event.model_version, event.selected,
            event.accepted, event.samples, event.loss, event.correct,
            event.count, event.first_active, event.plan_version,
            FreezeReason(event.freeze_reason), event.module, event.below,
            event.value, event.threshold, event.raw, _some(event.cohort),
            _some(event.child), CohortEventKind(event.cohort_change)
            if event.cohort_change else None, event.cohort_win,
            event.cohort_lump)

    def events(self) -> Iterator[ServerEvent]:
        """Take all events that are there."""
        event = self.poll()
        while event is not None:
            yield event
            event = self.poll()

    def allow(self, public_key: BytesLike,
              client_id: str | None = None) -> None:
        """Let a key take part where enrolment is LISTED, under this id; None:
        the first that it comes with."""
        lib.fl_server_allow(self._handle, _enrolment.public_key(public_key),
                            None if client_id is None
                            else _args.c_text(client_id, "client_id"))

    def disallow(self, public_key: BytesLike) -> None:
        """Take a key off the list, and turn its client away."""
        lib.fl_server_disallow(self._handle, _enrolment.public_key(public_key))

    @property
    def allowed(self) -> int:
        """Keys on the list."""
        return int(lib.fl_server_allow_count(self._handle))

    def ban(self, client_id: str, seconds: float = math.inf) -> None:
        """Turn a client, and its key, away for so long; inf = for ever."""
        duration = (protocol.NEVER if seconds == math.inf
                    else protocol.to_ns(seconds, "seconds"))
        lib.fl_server_ban(self._handle, _args.c_text(client_id, "client_id"),
                          duration)

    def unban(self, client_id: str) -> None:
        """Undo a ban; NotFoundError when there is none."""
        lib.fl_server_unban(self._handle, _args.c_text(client_id, "client_id"))

    def ban_left(self, client_id: str) -> float:
        """How many seconds a ban still lasts; 0 = none, inf = for ever."""
        left = int(lib.fl_server_ban_left(
            self._handle, _args.c_text(client_id, "client_id")))
        return math.inf if left == protocol.NEVER else left / 1e9

    def commit(self) -> None:
        """Make durable now what the store does not have yet: after Job.stop,
        or before the process ends."""
        lib.fl_server_commit(self._handle)

    def save(self) -> bytes:
        """Return all jobs, clients and running rounds:
        Server(state=bytes)."""
        return _state.save(lib.fl_server_save, self._handle, self._context)
