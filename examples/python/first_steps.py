# SPDX-License-Identifier: Apache-2.0
import numpy as np
import libfl as fl

rng = np.random.default_rng(1)
centres = rng.standard_normal((5, 20))


def blobs(n):  # five clouds of points, to be told apart
    y = rng.integers(0, 5, n)
    return centres[y] + 0.5 * rng.standard_normal((n, 20)), y


layers = [fl.Input((20,)), fl.Dense(32), fl.ReLU(), fl.Dense(5),
          fl.SoftmaxCrossEntropy()]
server, model, test = fl.Server(), fl.Model(layers, seed=1), blobs(1000)
job = server.add_job(model, rounds=15, codec="thc", min_clients=4)
trainers = [fl.LocalTrainer(fl.Model(layers), *blobs(200)) for _ in range(4)]
clients = [fl.Client(f"client-{i}", samples=200, train=trainer.train)
           for i, trainer in enumerate(trainers)]
fl.Loopback(server, clients).run()  # no sockets: bytes go from hand to hand
model.weights, version = job.copy_weights()
print(f"version {version}: accuracy {model.evaluate(*test).accuracy:.1%}")
