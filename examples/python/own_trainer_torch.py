# SPDX-License-Identifier: Apache-2.0
"""A host with its own trainer: PyTorch trains, libfl federates.

The PyTorch twin of examples/own_trainer. libfl knows a torch module only as
named tensors: the flat weights go into the module, the optimiser runs, the
flat weights go out. Weight layouts agree, so that nothing is transposed.
The server freezes layers that have learned enough, by what the trainers report
of their gradients; what is frozen is neither trained nor sent. Exits 0 only if
it learned.
"""
import numpy as np
import torch
import libfl as fl

CLIENTS, ROUNDS, FEATURES, CLASSES = 4, 20, 10, 3


def network():
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 24), torch.nn.ReLU(),
                               torch.nn.Linear(24, 24), torch.nn.ReLU(),
                               torch.nn.Linear(24, CLASSES))


def parts_of(module):
    """The modules in the sense of freezing: what has weights."""
    return [part for part in module if list(part.parameters())]


def described(module):
    """libfl's model of it."""
    return fl.Model([
        fl.Tensor(f"{number}.{name}", weight.shape, module=number)
        for number, part in enumerate(parts_of(module))
        for name, weight in part.named_parameters()])


def flat(module):
    return torch.nn.utils.parameters_to_vector(module.parameters())


def set_flat(module, weights):
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights),
                                        module.parameters())


class TorchTrainer:
    def __init__(self, x, y):
        self.module = network()
        self.parts = parts_of(self.module)
        self.freeze = fl.Freeze(len(self.parts), "server", steps_per_epoch=1,
                                max_frozen=len(self.parts) - 1)
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def train(self, task):
        set_flat(self.module, task.weights)
        self.freeze.follow(task, samples=len(self.y))
        generator = torch.Generator().manual_seed(task.seed % 2**63)
        optimiser = torch.optim.SGD(self.module.parameters(),
                                    lr=task.learning_rate)
        total = steps = 0
        for _ in range(task.epochs):
            order = torch.randperm(len(self.y), generator=generator)
            for rows in order.split(task.batch_size):
                request = self.freeze.begin(task.learning_rate)
                for number, part in enumerate(self.parts):
                    part.requires_grad_(number >= request.first_active)
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(
                    self.module(self.x[rows]), self.y[rows])
                loss.backward()
                if request.wants & fl.FreezeWants.GRADIENT:
                    self.freeze.push_gradient(
                        request.module, torch.cat([
                            weight.grad.flatten() for weight in
                            self.parts[request.module].parameters()]))
                optimiser.step()
                self.freeze.end(loss.item())
                total, steps = total + loss.item(), steps + 1
        return fl.TrainResult(weights=flat(self.module), loss=total / steps,
                              report=self.freeze.take_report())


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
    model = described(module)
    model.set_weights(flat(module).detach().numpy())
    model.self_test()
    server = fl.Server()
    job = server.add_job(model, rounds=ROUNDS, min_clients=CLIENTS,
                         learning_rate=0.1, seed=1,
                         # A layer whose gradients change no more than at
                         # first; the loss need only have begun to fall.
                         freeze={"criterion": "gradnorm", "tolerance": 1.25,
                                 "loss_change": 1, "max_frozen": 2})
    shards = [draw(rng, centres, 150 + 50 * i) for i in range(CLIENTS)]
    clients = [fl.Client(f"torch-{i}", model=model, samples=len(shard[1]),
                         train=TorchTrainer(*shard).train)
               for i, shard in enumerate(shards)]
    accuracy = 0.0
    for event in fl.Loopback(server, clients).events():
        if event.kind == fl.ServerEventKind.FREEZE_CHANGED:
            print(event.text)
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
