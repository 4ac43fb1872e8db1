# SPDX-License-Identifier: Apache-2.0
"""Sealed channels from Python, and a training whose bytes all go through
them."""
import numpy as np
import pytest

import libfl as fl


def make(**client):
    server, own = fl.KeyPair.generate(), fl.KeyPair.generate()
    ends = (fl.Channel(server_key=server.public, secret_key=own.secret,
                       **client),
            fl.Channel(secret_key=server.secret, is_server=True))
    return (*ends, server, own)


def carry(source, target):
    data = source.send()
    for at in range(0, len(data), 7):
        target.recv(data[at:at + 7])
    return len(data)


def shake(client, server):
    while carry(client, server) + carry(server, client):
        pass


def test_bytes_and_keys_come_through():
    client, server, server_pair, own = make()
    client.write(b"early")
    assert not client.is_open and not server.is_open
    shake(client, server)
    assert client.is_open and server.is_open
    assert server.read() == b"early" and server.read() == b""
    assert server.peer_key == own.public
    assert client.peer_key == server_pair.public
    server.write(np.arange(5, dtype=np.uint8))
    server.end()
    shake(client, server)
    assert client.read() == bytes(range(5)) and client.has_ended
    assert not server.has_ended


def test_a_client_without_a_key_is_nobody():
    pair = fl.KeyPair.generate()
    client = fl.Channel(server_key=pair.public)
    server = fl.Channel(secret_key=pair.secret, is_server=True)
    shake(client, server)
    assert server.peer_key is None
    strict = fl.Channel(secret_key=pair.secret, is_server=True,
                        needs_client_key=True)
    with pytest.raises(fl.FormatError, match="has no key"):
        shake(fl.Channel(server_key=pair.public), strict)


def test_a_changed_bit_and_another_server_are_refused():
    client, server, _, _ = make()
    shake(client, server)
    client.write(b"x" * 50)
    data = bytearray(client.send())
    data[20] ^= 1
    with pytest.raises(fl.FormatError, match="not the next one"):
        server.recv(data)
    with pytest.raises(fl.NotAllowedError, match="broken"):
        server.read()
    client, _, _, _ = make()
    _, other, _, _ = make()
    with pytest.raises(fl.FormatError, match="pinned"):
        shake(client, other)


def test_arguments_are_checked():
    pair = fl.KeyPair.generate()
    assert pair.secret not in repr(pair).encode()
    with pytest.raises(ValueError, match="want 64"):
        fl.Channel(secret_key=b"short", is_server=True)
    with pytest.raises(ValueError, match="want 32"):
        fl.Channel(server_key=pair.secret)
    with pytest.raises(fl.ArgumentError, match="server_key"):
        fl.Channel()


def test_a_training_runs_through_channels():
    """Only enrolled devices get through, and only as who they are."""
    server_pair = fl.KeyPair.generate()
    devices = {f"c{i}": fl.KeyPair.generate() for i in range(2)}
    enrolled = {pair.public: name for name, pair in devices.items()}
    model = fl.Model([fl.Input((4,)), fl.Dense(3), fl.SoftmaxCrossEntropy()],
                     seed=1)

    def train(task):
        return fl.TrainResult(weights=task.weights + np.float32(1), samples=5)

    with fl.Server() as server:
        job = server.add_job(model, rounds=2, min_clients=2, codec="f32")
        clients = [fl.Client(name, samples=5, train=train) for name in devices]
        near = [fl.Channel(server_key=server_pair.public,
                           secret_key=pair.secret)
                for pair in devices.values()]
        far = [fl.Channel(secret_key=server_pair.secret, is_server=True,
                          needs_client_key=True) for _ in devices]
        for now in range(200):
            for peer, client in enumerate(clients):
                client.poll(now * 10**9)
                near[peer].write(client.send())
                far[peer].recv(near[peer].send())
                if far[peer].is_open:
                    assert enrolled[far[peer].peer_key] == f"c{peer}"
                    server.recv(peer, far[peer].read())
                server.tick(now * 10**9)
                far[peer].write(server.send(peer))
                near[peer].recv(far[peer].send())
                if near[peer].is_open:
                    client.recv(near[peer].read())
        assert job.status.is_finished
        weights, _ = job.copy_weights()
        np.testing.assert_allclose(weights - model.weights, 2, atol=1e-5)
