# SPDX-License-Identifier: Apache-2.0
"""Data-parallel PyTorch whose gradients travel at a few bits each.

Two processes train one network on Fashion-MNIST (or on images made up here,
where that is not installed), first with float32 gradients, then with libfl's
as a communication hook of DistributedDataParallel. In your own program that
is two lines more:

  net = DistributedDataParallel(net)
  exchange = Exchange(fl.CodecOptions("thc", thc_mode="table", workers=2))
  net.register_comm_hook(exchange, Exchange.mean)

Exits 0 only if it learned and all processes hold the same weights, bit by bit.
"""
import argparse
import datetime
import gzip
import hashlib
import multiprocessing
import os
import pathlib
import sys
import tempfile

import numpy as np
import torch
import torch.distributed as dist
import libfl as fl

RANKS = 2
FOLDER = "/usr/share/datasets/fashion-mnist"


class Channel:
    """What one bucket of gradients needs: its codec and its memory."""

    def __init__(self, key, size, codec, has_feedback):
        self.key = key
        self.compressor = fl.Compressor(size, codec)
        self._feedback = (fl.Feedback(self.compressor) if has_feedback
                          else None)

    def measure(self, x, scale):
        return (self._feedback or self.compressor).measure(x, scale)

    def encode(self, x, scale, slot):
        if self._feedback is None:
            return self.compressor.encode(x, scale, slot=slot)
        update = self._feedback.encode(scale, slot=slot)
        self._feedback.settle(True)  # nobody's update is left out
        return update


class Exchange:
    """The mean of all processes' gradients, compressed by `codec`.

    `has_feedback`: what rounding loses in one step is sent with the next.
    `bytes_sent`: by this process, so far.
    """

    def __init__(self, codec, *, has_feedback=True, seed=0):
        self._codec, self._has_feedback = codec, has_feedback
        self._channels = {}
        self._noise = np.random.default_rng(seed)  # the same everywhere
        self._step = 0
        self.bytes_sent = 0

    def _channel(self, bucket):
        # DDP deals its parameters into new buckets after the first step; the
        # memory of the old ones does not fit any more.
        key = [parameter.data_ptr() for parameter in bucket.parameters()]
        channel = self._channels.get(bucket.index())
        if channel is None or channel.key != key:
            channel = Channel(key, bucket.buffer().numel(), self._codec,
                              self._has_feedback)
            self._channels[bucket.index()] = channel
        return channel

    def mean(self, bucket):
        """The hook. It works in the caller's thread: with Python callbacks
        on gloo's own futures some processes never end (torch 1.13)."""
        gradients = bucket.buffer()
        gradients.copy_(torch.from_numpy(
            self._mean(self._channel(bucket), gradients.numpy())))
        done = torch.futures.Future()
        done.set_result(gradients)
        return done

    def _mean(self, channel, x):
        self._step += 1
        ranks = dist.get_world_size()
        scale = fl.Scale(slots=ranks, round=self._step,
                         noise_seed=self._noise.bytes(32))
        norms = torch.from_numpy(channel.measure(x, scale))
        dist.all_reduce(norms, dist.ReduceOp.MAX)
        scale.norms = norms.numpy()
        update = channel.encode(x, scale, dist.get_rank())
        self.bytes_sent += len(update) + scale.norms.nbytes
        # With agreed norms all updates are equally long. Where there are more
        # than a few processes, let one of them add and send the sum.
        own = torch.frombuffer(bytearray(update), dtype=torch.uint8)
        updates = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(updates, own)
        with channel.compressor.partial(scale) as total:
            for other in updates:
                total.add(other.numpy())
            return total.decode()


class Plain:
    """The mean as float32, and as many bytes as that takes."""

    def __init__(self):
        self.bytes_sent = 0

    def mean(self, bucket):
        gradients = bucket.buffer()
        self.bytes_sent += gradients.numel() * gradients.element_size()
        dist.all_reduce(gradients)
        done = torch.futures.Future()
        done.set_result(gradients.div_(dist.get_world_size()))
        return done


def read(path, offset):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8,
                         offset=offset)


def load(folder, part, samples, seed):
    """Images and labels of `part`, "train" or "t10k"."""
    folder = pathlib.Path(folder)
    if folder.is_dir():
        x = read(folder / f"{part}-images-idx3-ubyte.gz", 16)
        y = read(folder / f"{part}-labels-idx1-ubyte.gz", 8)
    else:  # a bright row says the class
        rng = np.random.default_rng((seed, len(part)))
        y = rng.integers(0, 10, 10000)
        x = rng.integers(0, 160, (len(y), 28, 28))
        x[np.arange(len(y)), 2 * y + 3] += 90
    x = torch.from_numpy(x.reshape(len(y), 784).astype(np.float32) / 255)
    return x[:samples], torch.from_numpy(y.astype(np.int64))[:samples]


def show(done, total):
    """A progress bar on a terminal; done == total wipes it."""
    if not sys.stderr.isatty():
        return
    filled = 40 * done // total
    bar = f"\r[{'#' * filled}{'.' * (40 - filled)}] {done}/{total}"
    print("\r\033[K" if done == total else bar, end="", file=sys.stderr,
          flush=True)


def train(name, exchange, data, options):
    """Return the last accuracy, the bytes per step and the weights."""
    x, y, x_test, y_test = data
    torch.manual_seed(options.seed)
    order = torch.Generator().manual_seed(options.seed)
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(
        torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)))
    net.register_comm_hook(exchange, type(exchange).mean)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.2)
    is_first = dist.get_rank() == 0
    steps = len(y) // (RANKS * options.batch)
    for epoch in range(options.epochs):
        rows = torch.randperm(len(y), generator=order)
        for step in range(steps):
            first = (step * RANKS + dist.get_rank()) * options.batch
            own = rows[first:first + options.batch]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[own]), y[own]).backward()
            optimiser.step()
            if is_first:
                show(step + 1, steps)
        with torch.no_grad():
            accuracy = (net(x_test).argmax(1) == y_test).float().mean().item()
        sent = exchange.bytes_sent / (steps * (epoch + 1))
        if is_first:
            print(f"{name:8} epoch {epoch + 1}  accuracy {accuracy:.2%}  "
                  f"{sent:.0f} bytes per step and process", flush=True)
    return accuracy, sent, torch.nn.utils.parameters_to_vector(
        net.parameters()).detach().numpy()


def compare(data, options):
    """Train twice; return whether it worked."""
    base, base_sent, _ = train("float32", Plain(), data, options)
    codec = fl.CodecOptions("thc", thc_mode=options.mode, bits=options.bits,
                            workers=RANKS)
    exchange = Exchange(codec, has_feedback=options.feedback,
                        seed=options.seed)
    accuracy, sent, weights = train(options.mode, exchange, data, options)
    digests = [None] * RANKS
    dist.all_gather_object(digests, hashlib.sha256(weights).hexdigest())
    if dist.get_rank() == 0:
        memory = "with" if options.feedback else "without"
        print(f"{options.mode}, {options.bits} bits, {memory} error feedback: "
              f"{100 * (accuracy - base):+.2f} points against float32, "
              f"{base_sent / sent:.1f}x fewer bytes")
        for rank, digest in enumerate(digests):
            print(f"rank {rank} weights {digest[:32]}")
    return len(set(digests)) == 1 and accuracy > 0.5


def process(rank, folder, options):
    """One of the processes; they meet in a file of `folder`."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting",
                            rank=rank, world_size=RANKS,
                            timeout=datetime.timedelta(seconds=60))
    data = (*load(options.images, "train", options.samples, options.seed),
            *load(options.images, "t10k", None, options.seed))
    is_good = compare(data, options)
    dist.destroy_process_group()
    return is_good


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mode", choices=["dither", "uniform", "table"],
                        default="table", help="how THC rounds (table)")
    parser.add_argument("--bits", type=int, choices=range(1, 9), default=4,
                        metavar="N", help="bits per gradient, 1..8 (4)")
    parser.add_argument("--feedback", action=argparse.BooleanOptionalAction,
                        help="send what rounding lost with the next step\n"
                        "(default: unless --mode dither)")
    for name, value, text in (
            ("epochs", 3, "passes over the images"),
            ("batch", 128, "images per step and process"),
            ("samples", 60000, "images to train with, at most"),
            ("seed", 1, "of everything")):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N",
                            help=f"{text} ({value})")
    parser.add_argument("--images", default=FOLDER, metavar="FOLDER",
                        help="Fashion-MNIST (Debian: dataset-fashion-mnist)")
    options = parser.parse_args()
    if min(options.epochs, options.batch) < 1:
        parser.error("--epochs and --batch: want 1 or more")
    if options.samples < RANKS * options.batch:
        parser.error(f"--samples: want {RANKS} x --batch or more")
    if options.feedback is None:
        options.feedback = options.mode != "dither"
    return options


def main():
    options = arguments()
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        other = start.Process(target=process, args=(1, folder, options),
                              daemon=True)
        other.start()
        is_good = process(0, folder, options)
        other.join()
    return 0 if is_good and other.exitcode == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
