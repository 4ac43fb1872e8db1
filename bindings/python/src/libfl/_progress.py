# SPDX-License-Identifier: Apache-2.0
"""The bar that Model.fit draws on terminals: one line on stderr, rewritten
in place, taken away from the cursor's path by one newline at the end."""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Callable, Iterator, Optional, TextIO, Union

if TYPE_CHECKING:
    from .training import FitProgress

_WIDTH = 30
Report = Callable[["FitProgress"], None]
Choice = Union[Report, bool, None]


class Bar:
    """Draws `epoch 2 [#####.....] 50 % loss 0.1234`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_drawn = False

    def __call__(self, progress: FitProgress) -> None:
        share = progress.step / max(progress.steps, 1)
        filled = round(share * _WIDTH)
        bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%}"
        if progress.steps == 0:  # nobody knows how many
            bar = f"step {progress.step}"
        self._stream.write(f"\repoch {progress.epoch + 1} {bar} "
                           f"loss {progress.loss:.4f}")
        self._stream.flush()
        self._is_drawn = True

    def close(self) -> None:
        if self._is_drawn:
            self._stream.write("\n")
            self._stream.flush()


@contextlib.contextmanager
def reporter(choice: Choice) -> Iterator[Optional[Report]]:
    """Turn fit's `progress` argument into a function or None."""
    if callable(choice):
        yield choice
        return
    is_wanted = sys.stderr.isatty() if choice is None else choice
    if not is_wanted:
        yield None
        return
    bar = Bar(sys.stderr)
    try:
        yield bar
    finally:
        bar.close()
