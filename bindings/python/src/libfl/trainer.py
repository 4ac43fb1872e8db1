# SPDX-License-Identifier: Apache-2.0
"""The usual trainer of a client: SGD on a local model and local data."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._np import F32Array
from .model import Model
from .protocol import Score, TrainResult, TrainTask


class LocalTrainer:
    """Gives Client its `train` and `evaluate` functions.

    `model` is this trainer's own; `test` is (x, y) to score on, by default
    the training data.
    """

    def __init__(self, model: Model, x: npt.ArrayLike, y: npt.ArrayLike, *,
                 test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None
                 ) -> None:
        self.model = model
        self.x, self.y = np.asarray(x), np.asarray(y)
        self.test = test or (self.x, self.y)

    def train(self, task: TrainTask) -> TrainResult:
        if self.model.first_active != task.first_active:
            self.model.first_active = task.first_active
        self.model.set_weights(task.weights)
        result = self.model.fit(
            self.x, self.y, epochs=task.epochs, batch_size=task.batch_size,
            learning_rate=task.learning_rate, seed=task.seed, progress=False)
        return TrainResult(weights=self.model.weights, samples=len(self.y),
                           loss=result.mean_loss)

    def evaluate(self, weights: F32Array) -> Score:
        self.model.set_weights(weights)
        score = self.model.evaluate(*self.test)
        return Score(score.loss, score.correct, score.count)
