# SPDX-License-Identifier: Apache-2.0
"""What client and server have in common: reasons, training tasks, scores."""
from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

from . import _lib, _np
from ._lib import lib
from ._np import F32Array
from .freeze import FreezeReport

# How the library says "no timer runs", "no peer".
NEVER = 2**64 - 1

NS_PER_SECOND = 1_000_000_000


class RejectReason(enum.IntEnum):
    """Why a peer or a message of it was refused."""

    NONE = 0
    FORMAT = 1
    TOO_LARGE = 2
    VERSION = 3
    SCHEMA = 4
    UNKNOWN_JOB = 5
    ID_IN_USE = 6
    STALE = 7
    DUPLICATE = 8
    RANGE = 9
    STATE = 10
    NOT_SELECTED = 11
    LIMIT = 12
    VANISHED = 13
    DEADLINE = 14
    DECLINED = 15
    NO_ANSWER = 16
    STOPPED = 17
    SIGNATURE = 18
    NOT_ENROLLED = 19
    KEY = 20
    REPLAY = 21
    RATE = 22
    BANNED = 23
    FORGOTTEN = 24

    @classmethod
    def _missing_(cls, value: object) -> RejectReason | None:
        """A newer peer may have reasons that this version has no name for."""
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"REASON_{value}", value
        return member

    @property
    def text(self) -> str:
        """The reason's one-line meaning."""
        return _lib.text(lib.fl_reject_text(int(self)))


class Condition(enum.IntFlag):
    """What a device may have, and a job demand."""

    NONE = 0
    CHARGING = 1
    UNMETERED = 2
    IDLE = 4
    ALL = 7


@dataclasses.dataclass(frozen=True)
class TrainTask:
    """What to train, and from where. `weights` is the task's own array: it
    may be trained in place; it is empty when the client has a PagedModel.
    Modules below `first_active` need no training:
    their part of what comes back is ignored. `freeze_plan` is what the job's
    freezing says as bytes, for a Freeze whose `job` is `freeze_job`, and
    `freeze_reports` what it wants to know: FL_FREEZE_GRADNORM,
    FL_FREEZE_PLASTICITY or 0, nothing. `cohort`: whose model it is, in jobs
    with cohorts; `is_probe`: the server wants to know this model's loss on the
    data that is trained on. `prox_mu`: FedProx's, of LocalTerms; 0, none.
    `control`: SCAFFOLD's, of LocalTerms, whose `end` gives the result's
    `control_change`; None in other jobs."""

    round: int
    model_version: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    weights: F32Array
    first_active: int = 0
    freeze_reports: int = 0
    freeze_plan: bytes = b""
    freeze_job: bytes = b""
    cohort: int = 0
    is_probe: bool = False
    prox_mu: float = 0.0
    control: F32Array | None = None


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of training: exactly one of `weights` (trained) and
    `update` (trained - start), flat; none, with a PagedModel. `samples` 0 = as many as the client
    declared, `loss` NaN = unknown; `report` (front module, value), or what
    Freeze.take_report returns, is what freezing is decided from."""

    weights: F32Array | None = None
    update: F32Array | None = None
    samples: int = 0
    loss: float = math.nan
    report: FreezeReport | tuple[int, float] | None = None
    control_change: F32Array | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """Local score of a model: mean loss, hits, samples scored on."""

    loss: float
    correct: int
    count: int


class Declined(Exception):
    """Raised by a trainer or evaluator that sits this round out."""


def protocol_versions() -> range:
    """Return the versions of the wire protocol that are spoken."""
    return range(lib.fl_protocol_version_min(),
                 lib.fl_protocol_version_max() + 1)


def task_from(struct: Any) -> TrainTask:
    """Copy a task out of memory that the client lends for a moment."""
    return TrainTask(struct.round, struct.model_version, struct.epochs,
                     struct.batch_size, struct.learning_rate, struct.seed,
                     _np.copied(struct.weights, struct.n_weights
                                if struct.weights else 0),
                     struct.first_active, struct.freeze_reports,
                     _lib.copied(struct.freeze_plan, struct.freeze_plan_size),
                     _lib.copied(struct.freeze_job, _lib.HASH_BYTES
                                 if struct.freeze_job else 0),
                     struct.cohort, bool(struct.is_probe), struct.prox_mu,
                     _np.copied(struct.control, struct.n_weights)
                     if struct.control else None)


def fill_result(struct: Any, result: TrainResult | F32Array,
                is_paged: bool = False) -> object:
    """Write a result into fl_train_result; returns what has to live as long
    as C reads it. A bare array stands for trained weights."""
    if not isinstance(result, TrainResult):
        result = TrainResult(weights=result)
    if result.weights is None and result.update is None and is_paged:
        _fill_rest(struct, result)
        return None
    if (result.weights is None) == (result.update is None):
        raise ValueError("TrainResult: want exactly one of weights and "
                         "update")
    is_update = result.weights is None
    array = _np.f32(result.update if is_update else  # type: ignore[arg-type]
                    result.weights, "update" if is_update else "weights")
    if is_update:
        struct.update = _np.f32_pointer(array)
    else:
        struct.weights = _np.f32_pointer(array)
    struct.n = array.size
    _fill_rest(struct, result)
    if result.control_change is None:
        return array
    change = _np.f32(result.control_change, "control_change", array.size)
    struct.control_change = _np.f32_pointer(change)
    return array, change


def _fill_rest(struct: Any, result: TrainResult) -> None:
    struct.samples = result.samples
    struct.loss = result.loss
    report = result.report
    if isinstance(report, FreezeReport):
        report = report.module, report.value
    if report is not None:
        struct.report_module, struct.report_value = report


def fill_score(struct: Any, score: Score) -> None:
    struct.loss = score.loss
    struct.correct = score.correct
    struct.count = score.count


def to_ns(seconds: float, name: str) -> int:
    """Return a duration in nanoseconds."""
    if not 0 <= seconds < NEVER / NS_PER_SECOND:
        raise ValueError(f"{name}: got {seconds}, want seconds >= 0")
    return round(seconds * NS_PER_SECOND)
