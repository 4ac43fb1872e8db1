# SPDX-License-Identifier: Apache-2.0
"""Clients of a tree (node.py), a thread each: they stand for devices.

    clients.py URL=0:3 URL=3:3

are the clients of slots 0 to 2, called c0 to c2, below the first node and of
slots 3 to 5 below the second. Each has a model of its own, moves it halfway to
what its data want, sends that as an encoded update, and adds the step that
all agree on, so that all models stay the same.
"""
import json
import sys
import threading

import libfl as fl
import numpy as np

from node import CODEC, DIM, exchange, scale_of, tell


def train(slot, weights):
    """What a client's training adds to the weights."""
    wanted = np.random.default_rng(slot).standard_normal(DIM, np.float32)
    return (wanted - weights) * np.float32(0.5)


def take_part(parent, slot):
    weights = np.zeros(DIM, np.float32)
    samples = 10 + slot
    number = 0
    with fl.Compressor(DIM, CODEC) as compressor:
        while True:
            plan = json.loads(exchange(f"{parent}/plan?after={number}&name=c{slot}"))
            number = plan["round"]
            if plan["is_over"]:
                return
            here = f"round={number}&name=c{slot}"
            update = train(slot, weights)
            norms = compressor.measure(update, scale_of(plan),
                                       samples=samples)
            tell(f"{parent}/norms?{here}", norms.tobytes())
            agreed = np.frombuffer(exchange(f"{parent}/scale?{here}"),
                                   np.float32)
            scale = scale_of(plan, agreed)
            tell(f"{parent}/sum?{here}",
                 compressor.encode(update, scale, slot=slot, samples=samples))
            weights += compressor.decode(exchange(f"{parent}/step?{here}"),
                                         scale)


def main():
    threads = []
    for argument in sys.argv[1:]:
        parent, _, own = argument.rpartition("=")
        first, _, count = own.partition(":")
        threads += [threading.Thread(target=take_part, args=(parent, slot))
                    for slot in range(int(first), int(first) + int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
