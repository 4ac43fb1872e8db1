# SPDX-License-Identifier: Apache-2.0
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters
import libfl as fl

torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(10, 24), torch.nn.ReLU(),
                          torch.nn.Linear(24, 3))
x = torch.randn(1800, 10)
y = (x @ torch.randn(10, 3)).argmax(1)  # what is to be learned


def trainer(x, y):  # of one device, with its data
    def train(task):
        vector_to_parameters(torch.from_numpy(task.weights), net.parameters())
        optimiser = torch.optim.SGD(net.parameters(), lr=task.learning_rate)
        for rows in torch.randperm(len(y)).split(task.batch_size):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
        return parameters_to_vector(net.parameters())
    return train


model = fl.Model([fl.Tensor(name, weight.shape)
                  for name, weight in net.named_parameters()])
model.set_weights(parameters_to_vector(net.parameters()).detach().numpy())
server = fl.Server()
job = server.add_job(model, rounds=10, learning_rate=0.1, min_clients=4)
clients = [fl.Client(f"device-{i}", model=model, samples=200,
                     train=trainer(x[i:800:4], y[i:800:4])) for i in range(4)]
fl.Loopback(server, clients).run()  # no sockets: bytes go from hand to hand
vector_to_parameters(torch.from_numpy(job.copy_weights()[0]), net.parameters())
hits = net(x[800:]).argmax(1) == y[800:]
print(f"accuracy {hits.float().mean():.1%}")
