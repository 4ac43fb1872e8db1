# SPDX-License-Identifier: Apache-2.0
"""Numbers and text on their way into C, where each has its size and end."""
from __future__ import annotations

import enum
import operator
from typing import Any


def whole(value: Any, limit: int, name: str) -> int:
    """Return an integer of any kind (numpy's, too) that is in 0..limit.
    ctypes would take -1 and 2**32 without a word and drop the upper bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {value!r}, want an integer") from None
    if not 0 <= number <= limit:
        raise ValueError(f"{name}: got {number}, want 0..{limit}")
    return number


def u32(value: Any, name: str) -> int:
    return whole(value, 2**32 - 1, name)


def u64(value: Any, name: str) -> int:
    return whole(value, 2**64 - 1, name)


def choice(kind: type[enum.IntEnum], value: Any, name: str) -> int:
    """Take a member, or its name in any case."""
    if isinstance(value, str):
        try:
            return int(kind[value.upper()])
        except KeyError:
            names = ", ".join(member.name.lower() for member in kind)
            raise ValueError(f"{name}: got {value!r}, want one of {names}"
                             ) from None
    return u32(value, name)


def c_text(value: str, name: str) -> bytes:
    """Return text for C, which would end it at the first NUL."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: got {value!r}, want text")
    if "\0" in value:
        raise ValueError(f"{name}: got {value!r}, which has a NUL in it")
    return value.encode()


def i32(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {value!r}, want an integer") from None
    if not -2**31 <= number < 2**31:
        raise ValueError(f"{name}: got {number}, want 32 bits")
    return number


def rate(value: float | None) -> float:
    """Return a learning rate for C, where FL_RATE_SCHEDULED is None."""
    if value is None:
        return -1.0
    if not value >= 0:
        raise ValueError(f"learning_rate: got {value}, want >= 0")
    return float(value)
