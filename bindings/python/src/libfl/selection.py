# SPDX-License-Identifier: Apache-2.0
"""Selection: which clients a round asks to train, of those who are there.

Server.add_job takes one of the classes here. Every setting has the library's
default and name (selection.h), as in Oort(explore_least=.2, pacer=10).
"""
from __future__ import annotations

import dataclasses
from typing import Any, Callable, ClassVar, Sequence

from . import _lib
from ._lib import byref, lib


class Selection:
    """A draw, in which all are alike."""

    _rule: ClassVar[int] = 1

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        # A name that is wrong is one now, not when the job begins.
        known = {name for name, _ in _lib.SelectionOptions._fields_}
        known -= {"struct_size", "rule", "choose", "user"}
        for name in settings:
            if name not in known:
                raise TypeError(f"{type(self).__name__}: no setting {name!r}")

    def _struct(self) -> tuple[Any, list[Any]]:
        """Return the C struct and what it must not outlive."""
        options = _lib.SelectionOptions()
        lib.fl_selection_options_init(byref(options), _lib.sizeof(options))
        options.rule = self._rule
        for name, value in self.settings.items():
            setattr(options, name, value)
        keep: list[Any] = []
        self._add_callback(options, keep)
        return options, keep

    def _add_callback(self, options: Any, keep: list[Any]) -> None:
        pass

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}"
                             for name, value in self.settings.items())
        return f"{type(self).__name__}({settings})"


class PowerOfChoice(Selection):
    """Of `candidates` clients drawn by samples (0: twice as many as are
    asked, at least 20), those with the largest last losses."""

    _rule = 2


class Oort(Selection):
    """Those whose samples and loss promise most, less if they are slow, and a
    share of new ones: `explore`, `explore_decay`, `explore_least`,
    `clip_quantile`, `pace`, `pacer`, `pace_step`."""

    _rule = 3


@dataclasses.dataclass(frozen=True)
class SelectionRound:
    """Those who can be asked, in order of id, of whom `wanted` will be. Losses
    and seconds are NaN where they are not known; `rounds`: when each was last
    asked, 0 = never."""

    round: int
    attempt: int
    wanted: int
    ids: tuple[str, ...]
    samples: tuple[int, ...]
    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    rounds: tuple[int, ...]


Choose = Callable[[SelectionRound], Sequence[int]]


class HostSelection(Selection):
    """A rule of your own: `choose` returns `wanted` different places in
    `ids`. Anything else, or an exception, ends the round, which is tried
    again."""

    _rule = 4

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self.choose = choose

    def _add_callback(self, options: Any, keep: list[Any]) -> None:
        options.choose = _choose_of(self.choose)
        keep.append(options.choose)


def _choose_of(function: Choose) -> Any:
    def choose(_user: Any, struct: Any, chosen: Any) -> None:
        got = struct.contents
        n = got.count
        round_ = SelectionRound(
            got.round, got.attempt, got.wanted,
            tuple(_lib.text(text) for text in got.ids[:n]),
            tuple(got.samples[:n]), tuple(got.losses[:n]),
            tuple(got.seconds[:n]), tuple(got.rounds[:n]))
        places = list(function(round_))
        if len(places) != got.wanted:
            raise ValueError(f"choose: got {len(places)} places, want "
                             f"{got.wanted}")
        for i, place in enumerate(places):
            if not 0 <= place < n:
                raise ValueError(f"choose: got place {place}, want 0..{n - 1}")
            chosen[i] = place

    return _lib.ChooseFn(_lib.keep_exceptions(choose))
