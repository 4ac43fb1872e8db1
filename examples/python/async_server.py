# SPDX-License-Identifier: Apache-2.0
"""A server in an asyncio program, and clients beside it.

The server has no sockets, threads or clock, so that an event loop brings all
three: one task reads a connection, one writes it (and waits for slow ones by
itself), one timer ticks. Everything that touches fl.Server runs in the loop's
thread. Clients train in the loop's thread pool, so that the loop goes on.

    async_server.py                                 both, on this machine
    async_server.py --listen 127.0.0.1:9000         the server
    async_server.py --connect 127.0.0.1:9000 --first 0 --clients 3
"""
import argparse
import asyncio
import contextlib
import time

import numpy as np
import libfl as fl

DIM = 5_000
READ_BYTES = 1 << 16


class AsyncServer:
    """Move bytes between connections and an fl.Server.

    `on_event` is called with every event. `done` is set when a job has
    finished."""

    def __init__(self, server, on_event=None):
        self.server = server
        self.on_event = on_event or (lambda event: None)
        self.done = asyncio.Event()
        self._wakes = {}  # peer -> event of the task that writes to it
        self._writers = {}
        self._numbers = iter(range(1 << 62))
        self._timer = None

    async def handle(self, reader, writer):
        """Serve one connection: the callback of asyncio.start_server."""
        number = next(self._numbers)
        wake = self._wakes[number] = asyncio.Event()
        self._writers[number] = writer
        sender = asyncio.create_task(self._send(number, wake, writer))
        try:
            while data := await reader.read(READ_BYTES):
                self.server.recv(number, data)
                self.turn()
        except ConnectionError:
            pass
        finally:
            sender.cancel()
            del self._wakes[number], self._writers[number]
            self.server.disconnected(number)
            self.turn()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _send(self, number, wake, writer):
        try:
            while True:
                await wake.wait()
                wake.clear()
                while data := self.server.send(number):
                    writer.write(data)
                    await writer.drain()  # waits while the client is slow
                if (self.server.wants_close(number)
                        and not self.server.has_unsent(number)):
                    writer.close()
                    return
        except ConnectionError:
            pass  # reading notices it, too

    def turn(self):
        """Time, events and what is to be sent: after every change."""
        self.server.tick(time.monotonic_ns())
        for event in self.server.events():
            self.on_event(event)
            if event.kind == fl.ServerEventKind.JOB_FINISHED:
                self.done.set()
        for number in self.server.ready():
            if number in self._wakes:
                self._wakes[number].set()
        for number, wake in self._wakes.items():
            if self.server.wants_close(number):
                wake.set()
                # One that does not read would never hear the last words.
                asyncio.get_running_loop().call_later(
                    5, self._writers[number].transport.abort)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        due = self.server.next_timeout()
        if due is not None:
            delay = max(0, due - time.monotonic_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(
                delay, self.turn)

    async def drained(self):
        """Wait until every client has heard what there was, and left."""
        while self._wakes:
            await asyncio.sleep(0.05)

    def close(self):
        if self._timer:
            self._timer.cancel()
            self._timer = None


async def _read(reader, arrived):
    """Put what comes into the queue; None when the connection ends."""
    try:
        while data := await reader.read(READ_BYTES):
            await arrived.put(data)
    except ConnectionError:
        pass
    await arrived.put(None)


async def _session(client, train, host, port):
    """One connection, to its end; True when the client is done."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(host, port)
    arrived = asyncio.Queue(16)
    reading = asyncio.create_task(_read(reader, arrived))
    try:
        while True:
            event = client.poll(time.monotonic_ns())
            if event.kind == fl.ClientEventKind.NEED_TRAIN:
                client.submit(await loop.run_in_executor(None, train,
                                                         event.task))
            while data := client.send():
                writer.write(data)
                await writer.drain()
            if event.kind == fl.ClientEventKind.DONE:
                return True
            if event.kind == fl.ClientEventKind.ABORTED:
                raise RuntimeError(f"{event.reason.name}: {event.text}")
            if event.kind != fl.ClientEventKind.IDLE:
                continue
            due = client.next_timeout()
            delay = None if due is None else max(
                0, due - time.monotonic_ns()) / 1e9
            try:
                data = await asyncio.wait_for(arrived.get(), delay)
            except asyncio.TimeoutError:
                continue
            if data is None:
                return False
            client.recv(data)
    finally:
        reading.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def run_client(client, train, host, port, retry=0.2):
    """Take part until the job is over, whatever happens to connections."""
    while True:
        try:
            if await _session(client, train, host, port):
                return
        except (ConnectionError, OSError):
            pass
        client.disconnected()
        await asyncio.sleep(retry)


def trainer(index):
    """Halfway to what this client's data want."""
    wanted = np.random.default_rng(index).standard_normal(DIM, np.float32)

    def train(task):
        update = (wanted - task.weights) * np.float32(0.5)
        return fl.TrainResult(update=update,
                              loss=float(np.mean(update * update)))

    return train


def clients_of(first, count):
    """Tasks of clients, to be given an address."""
    return [(fl.Client(f"client-{i}", samples=10 + i), trainer(i))
            for i in range(first, first + count)]


def make_server(rounds, clients):
    server = fl.Server()
    job = server.add_job(fl.Model([fl.Tensor("w", [DIM])]), rounds=rounds,
                         min_clients=clients, seed=1)
    return server, job


def report(event):
    if event.kind == fl.ServerEventKind.ROUND_FINISHED:
        print(f"round {event.round}: {event.accepted} updates, "
              f"loss {event.loss:.4f}", flush=True)


async def serve(options):
    """Serve a job; with --listen alone, clients come from elsewhere."""
    host, port = options.listen.rsplit(":", 1)
    server, job = make_server(options.rounds, options.clients)
    front = AsyncServer(server, report)
    listener = await asyncio.start_server(front.handle, host, int(port))
    host, port = listener.sockets[0].getsockname()[:2]
    print(f"listening on {host}:{port}", flush=True)
    clients = [] if options.is_server else [
        asyncio.create_task(run_client(client, train, host, port))
        for client, train in clients_of(0, options.clients)]
    async with listener:
        front.turn()
        await front.done.wait()
        await asyncio.gather(*clients)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(front.drained(), 30)
    front.close()
    weights, version = job.copy_weights()
    print(f"version {version}, mean {weights.mean():.6f}", flush=True)


async def take_part(options):
    host, port = options.connect.rsplit(":", 1)
    await asyncio.gather(*(
        run_client(client, train, host, int(port))
        for client, train in clients_of(options.first, options.clients)))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", help="HOST:PORT; port 0 = any")
    parser.add_argument("--connect", help="HOST:PORT of the server")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--first", type=int, default=0,
                        help="number of the first client")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.is_server = options.listen is not None
    options.listen = options.listen or "127.0.0.1:0"
    asyncio.run(take_part(options) if options.connect else serve(options))


if __name__ == "__main__":
    main()
