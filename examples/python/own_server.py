# SPDX-License-Identifier: Apache-2.0
"""A server of one's own, for devices whose keys it knows, that is killed and
goes on. It has no sockets: whoever has some calls `turn`. Here the devices are
in the same process, and bytes go from hand to hand.

usage: own_server.py [STATE]
"""
import os
import sys
import tempfile
import time

import numpy as np
import libfl as fl

DEVICES, ROUNDS = 3, 6
IDLE = fl.ClientEventKind.IDLE


def open_server(path, model, keys):
    """What was committed goes on; the first time it begins."""
    server = fl.Server(store=fl.SqliteStore(path), enrolment="listed")
    job = server.jobs[0] if server.jobs else server.add_job(
        model, rounds=ROUNDS, min_clients=len(keys), max_samples=10_000)
    for key in keys:
        server.allow(key)
    return server, job


def turn(server, post):
    """After server.recv(peer, data), a lost connection, or a while: send what
    there is. Returns when to call it at the latest."""
    server.tick(time.monotonic_ns())
    for event in server.events():
        print(event.kind.name.lower(), event.round, event.client_id or "")
    for peer in server.ready():
        while data := server.send(peer):
            post(peer, data)
    return server.next_timeout()


def device(number):
    """A client that wants the weights to be its own."""
    wanted = np.random.default_rng(number).standard_normal(100, np.float32)

    def train(task):
        return fl.TrainResult(update=(wanted - task.weights) / 2, loss=1.0)

    key = fl.KeyPair.generate()
    client = fl.Client(f"device-{number}", train=train, samples=10, key=key)
    return client, key.public, wanted


def main(path):
    clients, keys, wanted = zip(*map(device, range(DEVICES)))
    model = fl.Model([fl.Tensor("w", [100])])
    server, job = open_server(path, model, keys)
    done, is_killed = set(), False
    while len(done) < len(clients):
        for peer, client in enumerate(clients):
            while (event := client.poll(time.monotonic_ns())).kind != IDLE:
                if event.kind == fl.ClientEventKind.DONE:
                    done.add(peer)
            while data := client.send():
                server.recv(peer, data)
        turn(server, lambda peer, data: clients[peer].recv(data))
        if job.status.round > ROUNDS // 2 and not is_killed:
            is_killed = True
            server.close()
            server, job = open_server(path, model, keys)
            for client in clients:
                client.disconnected()
    weights, version = job.copy_weights()
    server.close()
    print(f"version {version}, {np.abs(weights - np.mean(wanted, 0)).max():.3f} "
          "off the mean")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(os.path.join(folder, "job.sqlite"))
