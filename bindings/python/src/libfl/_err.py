# SPDX-License-Identifier: Apache-2.0
"""Exceptions, one class for every row of the library's status table.

The classes below are written out so that they can be caught by name and seen
by type checkers; `load` compares them with the table of the library at hand
and makes classes for codes that are newer than this file. Where Python has a
word for the same thing (ValueError, MemoryError, LookupError) the class is
one of these too.
"""
from __future__ import annotations

import re
from typing import Any

# FL_E_CALLBACK, for callbacks that fail, and FL_E_NOT_FOUND; `load` sets them
# from the table.
CALLBACK = -8
NOT_FOUND = -7


class FlError(Exception):
    """Base of everything that libfl raises. `status` is the code, `name` the
    constant's name, `function` the C function that failed."""

    status: int = 0
    name: str = "FL_E_?"
    meaning: str = ""

    def __init__(self, message: str = "", function: str = "") -> None:
        super().__init__(message or self.meaning)
        self.function = function


class CallerError(FlError):
    """The call itself was wrong."""


class PeerDataError(FlError):
    """Bytes that came from elsewhere are wrong."""


class ResourceError(FlError):
    """Memory, limits, streams."""


class StateError(FlError):
    """Not possible in the present state."""


class PoisonedError(FlError):
    """The handle cannot be used any more: close it."""


class ArgumentError(CallerError, ValueError):
    pass


class OptionsError(CallerError, ValueError):
    pass


class DimError(CallerError, ValueError):
    pass


class NotFiniteError(CallerError, ValueError):
    pass


class ConflictError(CallerError, ValueError):
    pass


class UnsupportedError(CallerError, NotImplementedError):
    pass


class NotFoundError(CallerError, LookupError):
    pass


class CallbackError(CallerError):
    pass


class SizeError(CallerError, ValueError):
    pass


class FormatError(PeerDataError, ValueError):
    pass


class TruncatedError(PeerDataError, ValueError):
    pass


class TooLargeError(PeerDataError, ValueError):
    pass


class VersionError(PeerDataError, ValueError):
    pass


class SchemaError(PeerDataError, ValueError):
    pass


class DuplicateError(PeerDataError, ValueError):
    pass


class StaleError(PeerDataError, ValueError):
    pass


class RangeError(PeerDataError, ValueError):
    pass


class NomemError(ResourceError, MemoryError):
    pass


class LimitError(ResourceError):
    pass


class IoError(ResourceError):
    pass


class EntropyError(ResourceError):
    pass


class NotAllowedError(StateError):
    """FL_E_STATE."""


class CancelledError(StateError):
    pass


class EmptyError(StateError):
    pass


class InternalError(PoisonedError):
    pass


_BANDS: list[tuple[int, type[FlError]]] = [
    (-900, PoisonedError), (-300, StateError), (-200, ResourceError),
    (-100, PeerDataError), (-1, CallerError)]
# Where the class is not called like the code.
_OTHER_NAMES = {"FL_E_STATE": "NotAllowedError"}
_by_status: dict[int, type[FlError]] = {}


def class_name(code_name: str) -> str:
    """FL_E_NOT_FINITE -> NotFiniteError."""
    words = re.sub(r"^FL_E_", "", code_name).split("_")
    return _OTHER_NAMES.get(code_name,
                            "".join(map(str.capitalize, words)) + "Error")


def band(status: int) -> type[FlError]:
    """Return the class of the band that a code lies in."""
    for first, base in _BANDS:
        if status <= first:
            return base
    return FlError


def load(rows: list[tuple[int, str, str]]) -> None:
    """Take the library's status table: (code, name, text)."""
    global CALLBACK, NOT_FOUND
    for status, code_name, meaning in rows:
        if status == 0:
            continue
        name = class_name(code_name)
        known: Any = globals().get(name)
        if known is None:
            known = type(name, (band(status),), {"__module__": __name__})
        known.status, known.name, known.meaning = status, code_name, meaning
        _by_status[status] = known
        if code_name == "FL_E_CALLBACK":
            CALLBACK = status
        if code_name == "FL_E_NOT_FOUND":
            NOT_FOUND = status


def table() -> dict[int, type[FlError]]:
    """Return the exception class of every code."""
    return dict(_by_status)


def from_status(status: int, function: str, detail: str) -> FlError:
    """Make the exception for a code; `detail` is fl_last_error's text."""
    kind = _by_status.get(status, band(status))
    error = kind(detail or kind.meaning or f"status {status}", function)
    if kind.status != status:
        error.status = status
    return error
