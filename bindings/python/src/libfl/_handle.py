# SPDX-License-Identifier: Apache-2.0
"""Base of the classes that own a handle of the library.

The handle itself lives in a small object of its own, which is also what goes
into calls and what arrays that look into the handle's memory keep: close()
drops this object's share, and the memory goes when no call is at work on it
and nobody looks at it any more.
"""
from __future__ import annotations

from types import TracebackType
from typing import Any, Callable, TypeVar

_H = TypeVar("_H", bound="Handle")


class Resource:
    """One handle, freed when the last reference to this object is gone.
    `keep` is what the handle needs for as long: its callbacks, its context.
    """

    __slots__ = ("pointer", "is_busy", "keep", "_free")

    def __init__(self, pointer: Any, free: Callable[[Any], None],
                 keep: tuple[object, ...]) -> None:
        self.pointer = pointer
        self.is_busy = False
        self._free = free
        self.keep = keep

    @property
    def _as_parameter_(self) -> Any:
        """What ctypes passes on: arguments keep this object during a call."""
        return self.pointer

    def __del__(self) -> None:
        self._free(self.pointer)


class Handle:
    """Something to be closed: by close(), by `with`, or when it is dropped."""

    _resource: Resource | None = None
    _resource_kind: type[Resource] = Resource

    def _own(self, pointer: Any, free: Callable[[Any], None],
             *keep: object) -> None:
        self._resource = self._resource_kind(pointer, free, keep)

    @property
    def _handle(self) -> Resource:
        """The handle as an argument of a call; ValueError after close()."""
        return self._lease()

    def _lease(self) -> Resource:
        if self._resource is None:
            raise ValueError(f"{type(self).__name__} is closed")
        if self._resource.is_busy:
            raise RuntimeError(f"{type(self).__name__} is at work: a callback "
                               f"of its call may not use it")
        return self._resource

    @property
    def is_closed(self) -> bool:
        return self._resource is None

    def close(self) -> None:
        """Free the handle. Closing twice is fine."""
        self._resource = None

    def __reduce__(self) -> Any:
        """Neither pickle nor copy can follow a pointer into the library."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")

    def __enter__(self: _H) -> _H:
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
