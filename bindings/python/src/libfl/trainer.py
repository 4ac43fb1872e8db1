# SPDX-License-Identifier: Apache-2.0
"""The usual trainer of a client: SGD on a local model and local data."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._np import F32Array
from .cache import ActivationCache
from .freeze import Freeze, FreezeCriterion, count_modules
from .model import Model
from .protocol import Score, TrainResult, TrainTask
from .strategy import LocalTerms


class LocalTrainer:
    """Gives Client its `train` and `evaluate` functions.

    `model` is this trainer's own; `test` is (x, y) to score on, by default
    the training data. In jobs that freeze, a Freeze of criterion SERVER is
    attached to the model: it follows the plans, and what it measures is the
    result's report. What comes out of frozen modules is kept in `cache`, if
    there is one, from round to round: the samples' ids are their places in
    `x`, which has to stay as it is. A cache in a file wants a `data_tag` that
    names them. In jobs of FedProx and SCAFFOLD the model's gradient hook is this
    trainer's, and so is the client's control.
    """

    def __init__(self, model: Model, x: npt.ArrayLike, y: npt.ArrayLike, *,
                 test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
                 cache: ActivationCache | None = None) -> None:
        self.model = model
        self.cache = cache
        self.x, self.y = np.asarray(x), np.asarray(y)
        self.test = test or (self.x, self.y)
        self._ids = None if cache is None else np.arange(len(self.y))
        self._mu = 0.0
        self._terms = LocalTerms(1)
        self._has_terms = False
        self._freeze: Freeze | None = None

    def train(self, task: TrainTask) -> TrainResult:
        freeze = self._follow(task)
        self.model.set_weights(task.weights)
        self._follow_prox(task)
        result = self.model.fit(
            self.x, self.y, epochs=task.epochs, batch_size=task.batch_size,
            learning_rate=task.learning_rate, seed=task.seed, progress=False,
            ids=self._ids)
        return TrainResult(weights=self.model.weights, samples=len(self.y),
                           loss=result.mean_loss,
                           report=freeze.take_report() if freeze else None,
                           control_change=self._end_control(task))

    def evaluate(self, weights: F32Array) -> Score:
        self.model.set_weights(weights)
        score = self.model.evaluate(*self.test)
        return Score(score.loss, score.correct, score.count)

    def _follow_prox(self, task: TrainTask) -> None:
        """What FedProx and SCAFFOLD add takes the place of the model's
        gradient hook."""
        wants = bool(task.prox_mu) or task.control is not None
        if task.prox_mu != self._mu or (wants and not self._has_terms):
            self._mu = task.prox_mu
            self._terms = LocalTerms(task.weights.size, mu=self._mu)
            self._has_terms = wants
            self.model.gradient_hook = self._terms if wants else None
        if wants:
            self._terms.begin(task.weights, task.control)

    def _end_control(self, task: TrainTask) -> F32Array | None:
        if task.control is None:
            return None
        steps = task.epochs * -(-len(self.y) // task.batch_size)
        return self._terms.end(self.model.weights, steps, task.learning_rate)

    def _follow(self, task: TrainTask) -> Freeze | None:
        """Return the controller, or None in jobs that never froze."""
        if self._freeze is None:
            if not task.freeze_plan:
                if self.model.first_active != task.first_active:
                    self.model.first_active = task.first_active
                return None
            n_modules = count_modules(self.model)
            self._freeze = Freeze(n_modules, FreezeCriterion.SERVER,
                                  steps_per_epoch=1, max_frozen=n_modules - 1)
            self._freeze.attach(self.model, self.cache, len(self.y))
        self._freeze.follow(task, len(self.y))
        return self._freeze
