# SPDX-License-Identifier: Apache-2.0
"""Long library calls that Ctrl-C can stop.

Python delivers signals to the main thread between two instructions, which is
never while that thread is inside C. So the call runs on a thread of its own
and the caller waits where signals get through. Only one of the two is at work
at any time: the call stands still while `on_report` runs, which so may look
at what the call works on. An exception of the caller (Ctrl-C, or one of
`on_report`) raises the cancel flag, waits until the call has stopped at a
whole step, and goes on its way.
"""
from __future__ import annotations

import _thread
import queue
from typing import Callable, Optional, TypeVar

_T = TypeVar("_T")

# A signal that comes right before a wait begins does not end it: wake up now
# and then to see it. Seconds.
_GLANCE = 0.1


def run(call: Callable[[Callable[[_T], None]], None],
        cancel: Callable[[], object],
        on_report: Optional[Callable[[_T], None]]) -> None:
    """Run call(report) on a worker thread. What it passes to `report` is
    handed to `on_report` on the calling thread, and `report` returns when
    that has. `cancel` makes the call end soon."""
    # Values to report; None wakes the caller up at the end. The end itself
    # is read off `outcome`: a value that was being handed over when Ctrl-C
    # came is lost.
    messages: queue.SimpleQueue[Optional[_T]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[None] = queue.SimpleQueue()
    outcome: list[Optional[BaseException]] = []

    def report(value: _T) -> None:
        messages.put(value)
        answers.get()

    def work() -> None:
        try:
            call(report)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)
        messages.put(None)

    # Ctrl-C can come between any two instructions, so that everything from
    # the start of the thread to its end is inside one `try`. Unlike
    # Thread.start, start_new_thread does not wait, which leaves no doubt
    # whether it has done its work.
    try:
        try:
            _thread.start_new_thread(work, ())
        except RuntimeError as error:  # there is no thread to be had
            outcome.append(error)
        while not outcome or not messages.empty():
            value = _take(messages)
            if value is not None:
                if on_report is not None:
                    on_report(value)
                value = None  # a traceback would keep it longer
                answers.put(None)
    except BaseException:
        # Values that came in between go too: they may look at the memory of
        # what the call works on.
        value = None
        while not outcome or not messages.empty():
            try:
                cancel()
                answers.put(None)
                _take(messages)
            except BaseException:  # no impatience: C is still at work
                pass
        raise
    if outcome[0] is not None:
        raise outcome[0]


def _take(messages: queue.SimpleQueue[Optional[_T]]) -> Optional[_T]:
    """Wait for a value; None now and then."""
    try:
        return messages.get(timeout=_GLANCE)
    except queue.Empty:
        return None
