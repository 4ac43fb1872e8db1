# SPDX-License-Identifier: Apache-2.0
"""A server and its clients in one process: for first steps, tests and small
simulations. Bytes go from hand to hand and time is a number that is set
forward when nobody has anything to say, so a run takes no longer than its
training and always goes the same way."""
from __future__ import annotations

from typing import Callable, Iterator, Sequence

from .client import Client, ClientEvent, ClientEventKind
from .server import Server, ServerEvent

_ENDS = (ClientEventKind.DONE, ClientEventKind.ABORTED)


class Loopback:
    """Runs `server` and `clients` against each other; client i is peer i."""

    def __init__(self, server: Server, clients: Sequence[Client]) -> None:
        self.server = server
        self.clients = list(clients)
        self.now_ns = 0
        self.bytes_up = 0
        self.bytes_down = 0
        # How each client ended: DONE or ABORTED.
        self.ends: dict[int, ClientEvent] = {}

    @property
    def is_over(self) -> bool:
        return len(self.ends) == len(self.clients)

    def run(self, on_event: Callable[[ServerEvent], object] | None = None
            ) -> None:
        """Run until every client is done or has given up; `on_event` sees
        the server's events."""
        for event in self.events():
            if on_event is not None:
                on_event(event)

    def events(self) -> Iterator[ServerEvent]:
        """The same as a generator of the server's events."""
        while not self.is_over:
            moved = self._exchange()
            events = list(self.server.events())
            yield from events
            if not moved and not events and not self.is_over:
                self._advance()

    def _exchange(self) -> bool:
        """Let everybody act once. False when nothing happened at all."""
        moved = False
        for peer, client in enumerate(self.clients):
            moved |= self._poll(peer, client)
            data = client.send()
            while data:
                moved = True
                self.bytes_up += len(data)
                self.server.recv(peer, data)
                data = client.send()
        self.server.tick(self.now_ns)
        for peer in list(self.server.ready()):
            data = self.server.send(peer)
            while data:
                moved = True
                self.bytes_down += len(data)
                self.clients[peer].recv(data)
                data = self.server.send(peer)
        return moved

    def _poll(self, peer: int, client: Client) -> bool:
        """Take a client's events until it waits for bytes or time."""
        acted = False
        while True:
            event = client.poll(self.now_ns)
            if event.kind in _ENDS:
                acted |= peer not in self.ends
                self.ends[peer] = event
                return acted
            if event.kind in (ClientEventKind.IDLE, ClientEventKind.WAIT):
                return acted
            if event.task is not None:
                raise RuntimeError("Loopback: every client needs train (and "
                                   "evaluate) functions")
            acted = True

    def _advance(self) -> None:
        """Nobody has anything to say: set time forward to the next timer."""
        timers = [client.next_timeout() for client in self.clients]
        timers.append(self.server.next_timeout())
        running = [timer for timer in timers if timer is not None]
        if not running:
            raise RuntimeError("Loopback: nobody has anything to say and no "
                               "timer runs; fewer clients than min_clients?")
        self.now_ns = max(self.now_ns + 1, min(running))
