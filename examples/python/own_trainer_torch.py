# SPDX-License-Identifier: Apache-2.0
"""A host with its own trainer: PyTorch trains, libfl federates.

The PyTorch twin of examples/own_trainer. libfl knows a torch module only as
named tensors: the flat weights go into the module, the optimiser runs, the
flat weights go out. Weight layouts agree, so that nothing is transposed.
Exits 0 only if it learned.
"""
import numpy as np
import torch
import libfl as fl

CLIENTS, ROUNDS, FEATURES, CLASSES = 4, 8, 10, 3


def network():
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 24), torch.nn.ReLU(),
                               torch.nn.Linear(24, CLASSES))


def flat(module):
    return torch.nn.utils.parameters_to_vector(module.parameters())


def set_flat(module, weights):
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights),
                                        module.parameters())


class TorchTrainer:
    def __init__(self, x, y):
        self.module = network()
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def train(self, task):
        set_flat(self.module, task.weights)
        generator = torch.Generator().manual_seed(task.seed % 2**63)
        optimiser = torch.optim.SGD(self.module.parameters(),
                                    lr=task.learning_rate)
        total = steps = 0
        for _ in range(task.epochs):
            order = torch.randperm(len(self.y), generator=generator)
            for rows in order.split(task.batch_size):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(
                    self.module(self.x[rows]), self.y[rows])
                loss.backward()
                optimiser.step()
                total, steps = total + loss.item(), steps + 1
        return fl.TrainResult(weights=flat(self.module), loss=total / steps)


def draw(rng, centres, n):
    y = rng.integers(0, CLASSES, n)
    x = centres[y] + 0.7 * rng.standard_normal((n, FEATURES))
    return x.astype(np.float32), y


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((CLASSES, FEATURES))
    test_x, test_y = draw(rng, centres, 1000)

    module = network()
    model = fl.Model.from_tensors(dict(module.named_parameters()))
    model.self_test()
    server = fl.Server()
    job = server.add_job(model, rounds=ROUNDS, min_clients=CLIENTS,
                         learning_rate=0.1, seed=1)
    shards = [draw(rng, centres, 150 + 50 * i) for i in range(CLIENTS)]
    clients = [fl.Client(f"torch-{i}", model=model, samples=len(shard[1]),
                         train=TorchTrainer(*shard).train)
               for i, shard in enumerate(shards)]
    accuracy = 0.0
    for event in fl.Loopback(server, clients).events():
        if event.kind == fl.ServerEventKind.ROUND_FINISHED:
            set_flat(module, job.copy_weights()[0])
            with torch.no_grad():
                top = module(torch.from_numpy(test_x)).argmax(1).numpy()
            accuracy = (top == test_y).mean()
            print(f"round {event.round}  loss {event.loss:.3f}  "
                  f"accuracy {accuracy:.1%}")
    return 0 if accuracy > 0.9 else 1


if __name__ == "__main__":
    raise SystemExit(main())
