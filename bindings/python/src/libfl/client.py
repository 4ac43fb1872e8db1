# SPDX-License-Identifier: Apache-2.0
"""Client: one participant of a federated training, without sockets.

The host moves bytes (`send`, `recv`) and passes time (`poll`). With a
`train` function the client trains by itself inside poll; without one the
event NEED_TRAIN asks the host for `submit`.
"""
from __future__ import annotations

import dataclasses
import enum
from typing import Any, Callable, Union

import numpy as np

from . import _args, _lib, _np, _state, protocol
from ._handle import Handle
from ._lib import byref, c_uint64, lib
from ._np import BytesLike, F32Array
from .channel import KeyPair
from .context import Context, lease_of
from .enrolment import public_key, secret_key
from .model import Model
from .paged import PagedModel
from .protocol import Declined, RejectReason, Score, TrainResult, TrainTask
from .slices import SliceClient

TrainFunction = Callable[[TrainTask], Union[TrainResult, F32Array]]
EvaluateFunction = Callable[[F32Array], Score]


class ClientEventKind(enum.IntEnum):
    """What a client has to say; see Client.poll."""

    IDLE = 0
    JOINED = 1
    NEED_TRAIN = 2
    NEED_EVALUATE = 3
    MODEL_READY = 4
    ACCEPTED = 5
    STALE = 6
    WAIT = 7
    DONE = 8
    ABORTED = 9


@dataclasses.dataclass(frozen=True)
class ClientEvent:
    """`task` is set for NEED_TRAIN and NEED_EVALUATE, `wait_until_ns` for
    WAIT, `reason` and `text` for ABORTED and STALE."""

    kind: ClientEventKind
    round: int
    model_version: int
    wait_until_ns: int
    reason: RejectReason
    text: str
    task: TrainTask | None


class Client(Handle):
    """A participant called `client_id` that joins `job` ("" = the server's
    first).

    `samples`: how many the local data has. `model`: the model at hand, whose
    schema must be the server's; None takes the server's description.
    `train(task)` returns trained weights or a TrainResult; `evaluate(weights)`
    returns a Score. Either may raise Declined; any other exception counts as
    declined as well and comes out of `poll`. Times are in seconds.
    `measure(weights)`: in jobs with cohorts, a Score on the data that is
    trained on, of which only the loss counts; None: `evaluate` does it.
    `max_depth`: modules that this client can afford to train, counted from
    the last; 0 = all. With a `key` the client proves to have it, to the server
    whose `server_key` is given alone, and signs its updates. With `paged` the
    model lies in files, where trainer and evaluator find it; close it after
    the client.
    """

    def __init__(self, client_id: str, *, job: str = "", samples: int = 1,
                 model: Model | None = None,
                 train: TrainFunction | None = None,
                 evaluate: EvaluateFunction | None = None,
                 measure: EvaluateFunction | None = None,
                 device_class: str = "", retry: float | None = None,
                 max_retries: int | None = None,
                 chunk_size: int | None = None,
                 max_frame_size: int | None = None,
                 max_weights: int | None = None, max_depth: int = 0,
                 state: bytes | None = None, key: KeyPair | None = None,
                 server_key: BytesLike | None = None,
                 paged: PagedModel | None = None,
                 context: Context | None = None) -> None:
        options = _lib.init(_lib.ClientOptions)
        options.client_id = _args.c_text(client_id, "client_id")
        options.job = _args.c_text(job, "job")
        options.device_class = _args.c_text(device_class, "device_class")
        options.samples = samples
        options.max_depth = max_depth
        self._count: int | None = None
        self._is_paged = paged is not None
        if model is not None:
            options.model = model._handle.pointer
            self._count = model.weight_count
        if retry is not None:
            options.retry_ns = protocol.to_ns(retry, "retry")
        for name, value in (("max_retries", max_retries),
                            ("chunk_size", chunk_size),
                            ("max_frame_size", max_frame_size),
                            ("max_weights", max_weights)):
            if value is not None:
                setattr(options, name, value)
        hooks = _Hooks(train, evaluate, measure, paged)
        hooks.fill(options)
        pointer, lease = lease_of(context)
        if state is None:
            client = _lib.new(_lib.Client, lib.fl_client_new, pointer,
                              byref(options))
        else:
            client = _state.restore(_lib.Client, lib.fl_client_restore,
                                    pointer, options,
                                    bytes(memoryview(state)))
        self._context = pointer
        self._own(client, lib.fl_client_free, lease, hooks)
        if key is not None:
            lib.fl_client_set_key(
                self._handle, secret_key(key.secret),
                None if server_key is None
                else public_key(server_key, "server_key"))
        elif server_key is not None:
            raise ValueError("server_key: got one, want a key, too")

    def send(self) -> bytes:
        """Take the next bytes for the server; b"" = nothing to send."""
        return _lib.take_bytes(lib.fl_client_send, self._handle)

    def recv(self, data: BytesLike) -> None:
        """Take bytes from the server, in any cut. An error means that the
        other side is no server of ours: call `disconnected`."""
        lib.fl_client_recv(self._handle, *_np.data(data, "data"))

    def disconnected(self) -> None:
        """Say that the transport broke."""
        lib.fl_client_disconnected(self._handle)

    def poll(self, now_ns: int) -> ClientEvent:
        """Advance to a monotonic time and take one event. Runs `train` and
        `evaluate`, and raises what they raised. They may not use this
        client, but they may close it."""
        event = _lib.init(_lib.ClientEvent)
        lease = self._handle
        lease.is_busy = True
        try:
            lib.fl_client_poll(lease, _args.u64(now_ns, "now_ns"),
                               byref(event))
            return _event_from(event)
        finally:
            lease.is_busy = False
            del lease  # a traceback would keep it longer

    def next_timeout(self) -> int | None:
        """When poll wants to be called at the latest; None = no timer."""
        deadline = c_uint64()
        lib.fl_client_next_timeout(self._handle, byref(deadline))
        return None if deadline.value == protocol.NEVER else deadline.value

    def attach_slices(self, slices: SliceClient | None) -> None:
        """Have rows come into the slices' store before training, and what has
        changed go with the result; or no more. The client keeps them."""
        lease = self._handle
        if slices is None:
            lib.fl_client_attach_slices(lease, None)
            return
        lib.fl_client_attach_slices(lease, slices._handle)
        lease.keep += (slices._lease(),)

    def set_conditions(self, conditions: protocol.Condition) -> None:
        """Say what the device has now. Rounds that demand more are declined,
        or given up (event STALE)."""
        lib.fl_client_set_conditions(self._handle, _args.u32(
            int(conditions), "conditions"))

    def set_budget(self, daily_bytes: int, day: int) -> None:
        """Bound the bytes of a day, 0 = no bound; another `day` forgets what
        was counted. Say it again after a client was made of a `state`."""
        lib.fl_client_set_budget(self._handle,
                                 _args.u64(daily_bytes, "daily_bytes"),
                                 _args.u64(day, "day"))

    @property
    def spent(self) -> int:
        """Bytes sent and received on the day that was said last."""
        return int(lib.fl_client_get_spent(self._handle))

    def submit(self, result: TrainResult | F32Array) -> None:
        """Answer NEED_TRAIN with trained weights or a TrainResult."""
        struct = _lib.init(_lib.TrainResult)
        kept = protocol.fill_result(struct, result, self._is_paged)
        lib.fl_client_submit(self._handle, byref(struct))
        del kept

    def submit_score(self, score: Score) -> None:
        """Answer NEED_EVALUATE."""
        struct = _lib.init(_lib.Score)
        protocol.fill_score(struct, score)
        lib.fl_client_submit_score(self._handle, byref(struct))

    def decline(self) -> None:
        """Answer NEED_TRAIN or NEED_EVALUATE with "not this time"."""
        lib.fl_client_decline(self._handle)

    def leave(self) -> None:
        """Leave the job, and have the server forget this client: ABORTED with
        RejectReason.FORGOTTEN says that it has."""
        lib.fl_client_leave(self._handle)

    @property
    def description(self) -> bytes:
        """The model's description as the server sent it; EmptyError before
        JOINED."""
        return _lib.take_bytes(lib.fl_client_get_description, self._handle)

    def copy_weights(self, count: int | None = None
                     ) -> tuple[F32Array, int]:
        """Return the model held now and its version. `count`: its weights;
        None = as the client's own or the server's model has them."""
        count = self._count if count is None else count
        if count is None:
            with Model.from_description(self.description) as model:
                count = model.weight_count
        weights = np.empty(count, np.float32)
        version = c_uint64()
        lib.fl_client_copy_weights(self._handle, _np.f32_pointer(weights),
                                   count, byref(version))
        return weights, version.value

    def save(self) -> bytes:
        """Return everything that is needed to go on later:
        Client(..., state=bytes)."""
        return _state.save(lib.fl_client_save, self._handle, self._context)


def _event_from(struct: Any) -> ClientEvent:
    """Copy an event out of memory that the client lends for a moment."""
    kind = ClientEventKind(struct.kind)
    asks = kind in (ClientEventKind.NEED_TRAIN, ClientEventKind.NEED_EVALUATE)
    return ClientEvent(kind, struct.round, struct.model_version,
                       struct.wait_until_ns, RejectReason(struct.reason),
                       _lib.text(struct.text),
                       protocol.task_from(struct.task) if asks else None)


class _Hooks:
    """The C callbacks of one client. They refer to the functions only, not
    to the client, which so can be dropped without a cycle."""

    def __init__(self, train: TrainFunction | None,
                 evaluate: EvaluateFunction | None,
                 measure: EvaluateFunction | None,
                 paged: PagedModel | None) -> None:
        self.paged = None if paged is None else paged._lease()
        self.measure = _evaluate_hook(measure) if measure else None
        self.train = (_train_hook(train, paged is not None) if train
                      else None)
        self.evaluate = _evaluate_hook(evaluate) if evaluate else None

    def fill(self, options: Any) -> None:
        if self.train is not None:
            options.train = self.train
        if self.evaluate is not None:
            options.evaluate = self.evaluate
        if self.measure is not None:
            options.measure = self.measure
        if self.paged is not None:
            options.paged = self.paged.pointer


def _train_hook(train: TrainFunction, is_paged: bool) -> Any:
    # The result's memory has to live until the next call of the trainer.
    kept: list[object] = [None]

    def run(task: Any, result: Any, _user: Any) -> None:
        answer = train(protocol.task_from(task.contents))
        kept[0] = protocol.fill_result(result.contents, answer, is_paged)

    return _lib.TrainFn(_declinable(run))


def _evaluate_hook(evaluate: EvaluateFunction) -> Any:
    def run(weights: Any, count: int, score: Any, _user: Any) -> None:
        protocol.fill_score(score.contents,
                            evaluate(_np.copied(
                                weights, count if weights else 0)))

    return _lib.EvaluateFn(_declinable(run))


def _declinable(run: Callable[..., None]) -> Callable[..., int]:
    """Turn Declined into a bare failure status; keep other exceptions."""
    def body(*arguments: Any) -> int:
        try:
            run(*arguments)
        except Declined:
            return _lib.callback_failed()
        return 0

    return _lib.keep_exceptions(body)
