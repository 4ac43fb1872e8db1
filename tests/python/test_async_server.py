# SPDX-License-Identifier: Apache-2.0
"""examples/python/async_server.py over real sockets: the model of a loopback,
connections that are cut, peers that send anything or never read, and processes
of their own."""
import asyncio
import importlib.util
import re
import subprocess
import sys

import pytest

import libfl as fl

CLIENTS, ROUNDS = 3, 4
PATIENCE = 120


@pytest.fixture
def example(root):
    spec = importlib.util.spec_from_file_location(
        "async_server", root / "examples" / "python" / "async_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wanted(example):
    """The model, without sockets."""
    server, job = example.make_server(ROUNDS, CLIENTS)
    loop = fl.Loopback(server, [
        fl.Client(f"client-{i}", samples=10 + i, train=example.trainer(i))
        for i in range(CLIENTS)])
    for _ in loop.events():
        pass
    return job.copy_weights()[0].tobytes()


class Run:
    """A server and its clients in one loop; `beside` runs with them."""

    def __init__(self, example, beside=None, on_event=None):
        self.example = example
        self.beside = beside
        self.events = []
        self.writers = []
        self.on_event = on_event

    def run(self):
        return asyncio.run(asyncio.wait_for(self._main(), PATIENCE))

    async def _handle(self, reader, writer):
        self.writers.append(writer)
        await self.front.handle(reader, writer)

    def _event(self, event):
        self.events.append(event)
        if self.on_event:
            self.on_event(self, event)

    async def _main(self):
        server, job = self.example.make_server(ROUNDS, CLIENTS)
        self.front = self.example.AsyncServer(server, self._event)
        listener = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        address = listener.sockets[0].getsockname()[:2]
        async with listener:
            self.front.turn()
            tasks = [self.example.run_client(client, train, *address)
                     for client, train in self.example.clients_of(0, CLIENTS)]
            if self.beside:
                tasks.append(self.beside(*address))
            await asyncio.gather(*tasks, self.front.done.wait())
            await self.front.drained()
        self.front.close()
        return job.copy_weights()[0].tobytes()

    def kinds(self):
        return [event.kind for event in self.events]


def test_it_gives_the_model_of_a_loopback(example):
    run = Run(example)
    assert run.run() == wanted(example)
    assert run.kinds().count(fl.ServerEventKind.ROUND_FINISHED) == ROUNDS
    assert run.kinds()[-1] == fl.ServerEventKind.JOB_FINISHED


def test_clients_whose_connections_are_cut_come_back(example):
    def cut(run, event):
        if (event.kind == fl.ServerEventKind.SCALE_AGREED
                and event.round == 2):
            for writer in run.writers:
                writer.transport.abort()

    run = Run(example, on_event=cut)
    assert run.run() == wanted(example)
    assert fl.ServerEventKind.CLIENT_RETURNED in run.kinds()
    assert len(run.writers) >= 2 * CLIENTS


def test_a_peer_that_sends_anything_is_closed_and_stops_nobody(example):
    async def babble(host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(bytes(range(256)) * 400)
        await writer.drain()
        try:
            while await reader.read(1000):
                pass
        except ConnectionError:
            pass
        writer.close()

    run = Run(example, babble)
    assert run.run() == wanted(example)
    assert fl.ServerEventKind.PEER_REJECTED in run.kinds()


def test_a_peer_that_never_says_anything_stops_nobody(example):
    async def be_silent(host, port):
        _, writer = await asyncio.open_connection(host, port)
        while fl.ServerEventKind.JOB_FINISHED not in run.kinds():
            await asyncio.sleep(0.02)
        writer.transport.abort()

    run = Run(example, be_silent)
    assert run.run() == wanted(example)


def test_server_and_clients_are_processes_of_their_own(root):
    program = [sys.executable,
               str(root / "examples" / "python" / "async_server.py")]
    server = subprocess.Popen([*program, "--listen", "127.0.0.1:0",
                               "--clients", "4", "--rounds", "3"],
                              stdout=subprocess.PIPE, text=True)
    clients = []
    try:
        address = server.stdout.readline().split()[-1]
        clients = [subprocess.Popen([*program, "--connect", address,
                                     "--first", str(first), "--clients", "2"])
                   for first in (0, 2)]
        output = server.communicate(timeout=PATIENCE)[0]
        assert [client.wait(PATIENCE) for client in clients] == [0, 0]
    finally:
        for process in (server, *clients):
            process.kill()
            process.wait()
    assert server.returncode == 0
    assert "round 3: 4 updates" in output and "version 3" in output


def test_alone_it_runs_both(root):
    result = subprocess.run(
        [sys.executable, root / "examples" / "python" / "async_server.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=PATIENCE, check=False)
    assert result.returncode == 0 and result.stderr == ""
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", result.stdout)]
    assert len(losses) == 5 and losses[-1] < losses[0]
