# SPDX-License-Identifier: Apache-2.0
"""Who may take part: what a server asks of clients with keys (KeyPair), and how
it bears with those that send too much."""
from __future__ import annotations

import dataclasses
import enum
from typing import Any, Callable

from . import _args, _lib, protocol
from ._np import BytesLike
from .channel import _key


class Enrolment(enum.IntEnum):
    """Everybody, keys on the server's list (Server.allow), or keys for which
    its `enrol` function says yes."""

    OPEN = 0
    LISTED = 1
    ASK = 2


@dataclasses.dataclass(frozen=True)
class EnrolRequest:
    """Somebody who has proven to have this key, and wants to be this client of
    this job."""

    public_key: bytes
    client_id: str
    job: int


EnrolFunction = Callable[[EnrolRequest], bool]


@dataclasses.dataclass(frozen=True)
class Allowance:
    """What a peer may send. `messages` at once (without the chunks of an
    upload), `rejects`: bad ones before its client is banned for `ban` seconds;
    both fill up again in `interval` seconds. 0 = no limit."""

    messages: int = 0
    rejects: int = 0
    interval: float = 60.0
    ban: float = 3600.0
    max_bans: int = 65536


def public_key(value: BytesLike, name: str = "public_key") -> Any:
    """A key as C takes it."""
    return _key(value, _lib.PUBLIC_KEY_BYTES, name)


def secret_key(value: BytesLike) -> Any:
    """The same of a secret one."""
    return _key(value, _lib.SECRET_KEY_BYTES, "secret_key")


def _hook(enrol: EnrolFunction) -> Any:
    def run(request: Any, _user: Any) -> int:
        asked = request.contents
        key = bytes(asked.public_key[:_lib.PUBLIC_KEY_BYTES])
        return int(bool(enrol(EnrolRequest(key, _lib.text(asked.client_id),
                                           asked.job))))

    return _lib.EnrolFn(_lib.keep_exceptions(run))


def fill(options: Any, enrolment: Enrolment | str,
         enrol: EnrolFunction | None, server_key: BytesLike | None,
         allowance: Allowance) -> Any:
    """Set a server's options; returns what has to live as long as it does."""
    hook = None
    options.enrolment = _args.choice(Enrolment, enrolment, "enrolment")
    if enrol is not None:
        hook = _hook(enrol)
        options.enrol = hook
        options.enrolment = int(Enrolment.ASK)
    if server_key is not None:
        options.server_key = public_key(server_key, "server_key")
    options.max_messages = _args.u32(allowance.messages, "messages")
    options.max_rejects = _args.u32(allowance.rejects, "rejects")
    options.max_bans = _args.u32(allowance.max_bans, "max_bans")
    options.rate_interval_ns = protocol.to_ns(allowance.interval, "interval")
    options.ban_ns = protocol.to_ns(allowance.ban, "ban")
    return hook
