#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client of a federated training in pure Python: no libfl, no numpy, nothing
but docs/design/protocol.md, whose sections are named below. It trains models of
dense layers over the codec f32, as slow as Python is.

usage: raw_client.py URL ID DATA [--index I --participants N] [--model-out FILE]
                     [--key FILE]

DATA is a folder with train-*-idx?-ubyte.gz; of N participants this one has
every N-th sample, from I on. FILE is what fl-participant --new-key writes.
"""
from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import math
import os
import pathlib
import random
import struct
import sys
import time
import urllib.parse

import raw_ed25519

HELLO, NORM, METRICS, DECLINE, GET_MODEL, BYE = range(1, 7)
WELCOME, PLAN, SCALE, ACK, EVALUATE, WAIT, REJECT, DONE = range(16, 24)
CHALLENGE, MANIFEST, CHUNK = 24, 32, 33
UPDATE, MODEL = 1, 2
F32 = 1
CHUNK_SIZE = 256 << 10


def blake(data):
    return hashlib.blake2b(data, digest_size=32).digest()


# ---- "Bodies": msgpack -------------------------------------------------------

class Double(float):
    """A float that is written as float 64."""


def pack_number(value):
    for limit, head in ((1 << 7, "B"), (1 << 8, "BB"), (1 << 16, ">BH"),
                        (1 << 32, ">BI"), (1 << 64, ">BQ")):
        if value < limit:
            tag = {"B": [], "BB": [0xcc], ">BH": [0xcd], ">BI": [0xce],
                   ">BQ": [0xcf]}[head]
            return struct.pack(head, *tag, value)
    raise ValueError("number: above 64 bits")


def pack_sized(data, short, tags):
    """The head of str and bin, and their bytes."""
    n = len(data)
    if short is not None and n < 32:
        return bytes([short | n]) + data
    if n < 1 << 8 and tags[0]:
        return struct.pack("BB", tags[0], n) + data
    if n < 1 << 16:
        return struct.pack(">BH", tags[1], n) + data
    return struct.pack(">BI", tags[2], n) + data


def pack(value):
    if isinstance(value, Double):
        return struct.pack(">Bd", 0xcb, value)
    if isinstance(value, float):
        return struct.pack(">Bf", 0xca, value)
    if isinstance(value, int):
        return pack_number(value)
    if isinstance(value, str):
        return pack_sized(value.encode(), 0xa0, (0xd9, 0xda, 0xdb))
    if isinstance(value, bytes):
        return pack_sized(value, None, (0xc4, 0xc5, 0xc6))
    if isinstance(value, list):
        head = (bytes([0x90 | len(value)]) if len(value) < 16
                else struct.pack(">BH", 0xdc, len(value)))
        return head + b"".join(map(pack, value))
    head = (bytes([0x80 | len(value)]) if len(value) < 16
            else struct.pack(">BH", 0xde, len(value)))
    return head + b"".join(pack(k) + pack(v) for k, v in sorted(value.items()))


class Unpacker:
    """Reads what a server sends; struct.error or IndexError when it is cut."""

    FIXED = {0xca: ">f", 0xcb: ">d", 0xcc: "B", 0xcd: ">H", 0xce: ">I",
             0xcf: ">Q"}
    SIZED = {0xc4: "B", 0xc5: ">H", 0xc6: ">I", 0xd9: "B", 0xda: ">H",
             0xdb: ">I", 0xdc: ">H", 0xdd: ">I", 0xde: ">H", 0xdf: ">I"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def take(self, n):
        if n > len(self.data) - self.at:
            raise IndexError("msgpack: cut")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self):
        tag = self.number("B")
        if tag < 0x80:
            return tag
        if tag < 0x90:
            return self.map(tag & 15)
        if tag < 0xa0:
            return [self.value() for _ in range(tag & 15)]
        if tag < 0xc0:
            return self.take(tag & 31).decode()
        if tag in (0xc2, 0xc3):
            return tag == 0xc3
        if tag in self.FIXED:
            return self.number(self.FIXED[tag])
        n = self.number(self.SIZED[tag])
        if tag in (0xc4, 0xc5, 0xc6):
            return self.take(n)
        if tag in (0xd9, 0xda, 0xdb):
            return self.take(n).decode()
        if tag in (0xdc, 0xdd):
            return [self.value() for _ in range(n)]
        return self.map(n)

    def map(self, n):
        return {self.value(): self.value() for _ in range(n)}


# ---- "Frames" ----------------------------------------------------------------

def frame(kind, body):
    data = body if isinstance(body, bytes) else pack(body)
    return struct.pack("<IBBH", len(data), 1, kind, 0) + data


def frames(data):
    """(type, body) of every frame; an answer holds whole ones."""
    at = 0
    while at < len(data):
        n, version, kind, flags = struct.unpack_from("<IBBH", data, at)
        if version != 1 or flags:
            raise ValueError("frame: another version")
        body = data[at + 8:at + 8 + n]
        if len(body) < n:
            raise ValueError("frame: cut")
        yield kind, body if kind == CHUNK else Unpacker(body).value()
        at += 8 + n


# ---- "The model" -------------------------------------------------------------

class Network:
    """Layers in a row: input, flatten, dense, relu, softmax_cross_entropy."""

    def __init__(self, description):
        self.layers, self.segments = [], []
        width, module = 0, None
        for layer in Unpacker(description).value()[2]:
            kind = layer[1]
            if kind == "input":
                width = math.prod(layer[16])
                self.scale, self.shift = layer[17], layer[18]
            elif kind == "dense":
                units = layer[16]
                self.layers.append(("dense", width, units))
                size = units * (width + 1)
                if layer[3] == module:
                    self.segments[-1] += size
                else:
                    self.segments.append(size)
                width, module = units, layer[3]
            elif kind == "relu":
                self.layers.append(("relu", width, width))
            elif kind not in ("flatten", "softmax_cross_entropy"):
                raise ValueError(f"layer of kind {kind}: not known here")

    def forward(self, w, x):
        """Outputs of every layer, the input first."""
        outputs, at = [[v * self.scale + self.shift for v in x]], 0
        for kind, n, units in self.layers:
            x = outputs[-1]
            if kind == "relu":
                outputs.append([max(v, 0.) for v in x])
                continue
            bias = at + units * n
            outputs.append([
                sum(map(float.__mul__, w[at + u * n:at + u * n + n], x))
                + w[bias + u] for u in range(units)])
            at = bias + units
        return outputs

    def loss(self, scores, label):
        """The loss, and its gradient by the scores."""
        top = max(scores)
        parts = [math.exp(v - top) for v in scores]
        total = sum(parts)
        gradient = [v / total for v in parts]
        gradient[label] -= 1.
        return math.log(total) - (scores[label] - top), gradient

    def add_gradient(self, w, x, label, into):
        """Add one sample's gradient to `into`; its loss."""
        outputs = self.forward(w, x)
        loss, back = self.loss(outputs[-1], label)
        at = sum(u * (n + 1) for kind, n, u in self.layers if kind == "dense")
        for place in range(len(self.layers) - 1, -1, -1):
            kind, n, units = self.layers[place]
            x = outputs[place]
            if kind == "relu":
                back = [g if v > 0 else 0. for g, v in zip(back, x)]
                continue
            at -= units * (n + 1)
            before = [0.] * n
            for u, g in enumerate(back):
                row = at + u * n
                if g == 0.:
                    continue
                into[row:row + n] = [a + g * v for a, v in
                                     zip(into[row:row + n], x)]
                before = [b + g * v for b, v in zip(before, w[row:row + n])]
                into[at + units * n + u] += g
            back = before
        return loss


def f32(values):
    """Rounded to f32."""
    n = len(values)
    return list(struct.unpack(f"<{n}f", struct.pack(f"<{n}f", *values)))


def train(network, weights, data, plan):
    """Trained weights, and the mean loss of the last epoch."""
    w, rng, mean = list(weights), random.Random(plan[9]), 0.
    for _ in range(plan[6]):
        order, total = list(range(len(data))), 0.
        rng.shuffle(order)
        for at in range(0, len(order), plan[7]):
            batch = order[at:at + plan[7]]
            gradient = [0.] * len(w)
            for i in batch:
                total += network.add_gradient(w, *data[i], gradient)
            rate = plan[8] / len(batch)
            w = [a - rate * g for a, g in zip(w, gradient)]
        mean = total / len(order)
    return f32(w), mean


# ---- "An update with f32 or bf16" --------------------------------------------

def bf16_up(value):
    """The bits of the least bf16 that is not below."""
    nearest, = struct.unpack("<f", struct.pack("<f", value))
    bits, = struct.unpack("<I", struct.pack("<f", nearest))
    bits += nearest < value
    return (bits + 0xffff) >> 16


def from_bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


class Encoder:
    """The update of one round."""

    def __init__(self, segments, update, samples, plan):
        self.segments, self.update = segments, update
        self.samples, self.plan = samples, plan
        cap = plan[5]
        self.weight = 1. if cap == 0 else f32([min(1., samples / cap)])[0]
        at = 0
        self.lengths = []
        for n in segments:
            squares = math.fsum(v * v for v in update[at:at + n])
            self.lengths.append(math.sqrt(squares) * self.weight)
            at += n

    def norms(self):
        return b"".join(struct.pack("<H", bf16_up(v)) for v in self.lengths)

    def payload(self, norms):
        parts, at = [], 0
        for place, n in enumerate(self.segments):
            bound = from_bf16(struct.unpack_from("<H", norms, 2 * place)[0])
            own = self.lengths[place]
            factor = self.weight
            if from_bf16(bf16_up(own)) > bound:
                factor *= bound / own
            values = [max(-bound, min(bound, v * factor))
                      for v in self.update[at:at + n]]
            if bound >= 2. ** -133:
                parts.append(struct.pack(f"<{n}f", *values))
            at += n
        return b"".join(parts)

    def encode(self, seed, norms, clip, is_public):
        count = len(self.segments)
        compressor = blake(b"fl compressor 2\0" + struct.pack(
            f"<{5 + count}Q", F32, 0, 32, 0, count, *self.segments))
        bits, = struct.unpack("<I", struct.pack("<f", clip))
        scale = blake(b"fl scale 1\0" + struct.pack(
            "<5Q", self.plan[1], self.plan[4], self.plan[5], is_public, bits)
            + seed + norms)
        payload = self.payload(norms)
        head = struct.pack("<4sHBBBBHIII", b"FLCU", 2, F32, 0, 32, is_public,
                           0, self.plan[4], count, 0)
        head += struct.pack("<Q8s8sQ", self.plan[1], compressor[:8],
                            scale[:8], len(payload))
        head += struct.pack("<IIQ", self.plan[3], 0, self.samples)
        head += b"\1" * count
        return head + bytes(-len(head) % 64) + payload


# ---- "Over HTTP" -------------------------------------------------------------

class Session:
    """Sends frames and gives what comes back; begins anew when it must."""

    def __init__(self, url, hello):
        self.url, self.hello = urllib.parse.urlsplit(url), hello
        self.connection, self.id, self.is_new = None, "", True

    def begin(self):
        if self.connection:
            self.connection.close()
        self.connection = http.client.HTTPConnection(
            self.url.hostname, self.url.port, timeout=120)
        self.id, self.is_new = os.urandom(16).hex(), True

    def exchange(self, data):
        """The answer's body; None: a new session has begun, say nothing of
        what was before."""
        if not self.id:
            self.begin()
        if self.is_new:
            data = self.hello() + data
        try:
            self.connection.request("PUT" if self.is_new else "POST",
                                    f"/fl/v1/session/{self.id}", data)
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
            self.begin()
            return None
        if answer.status in (200, 204):
            self.is_new = False
            return body
        if answer.status != 404 and answer.status < 500:
            raise SystemExit(f"server: {answer.status} {body.decode()}")
        time.sleep(0.2)
        self.begin()
        return None


# ---- "Keys" ------------------------------------------------------------------

def sized(data):
    return struct.pack("<Q", len(data)) + data


class Key:
    """Signs for one session after the other."""

    def __init__(self, seed):
        self.seed, self.public = seed, raw_ed25519.public_key(seed)
        self.nonce = self.session = None

    def add_to_hello(self, body):
        body[13] = self.public
        if self.nonce:
            self.session = blake(
                b"fl hello 1" + bytes(6) + self.nonce + self.public + bytes(32)
                + sized(b"") + sized(body[3].encode())
                + struct.pack("<QQQ", body[6], body[5], 0))
            body[14] = raw_ed25519.sign(self.seed, self.session)
            self.nonce = None

    def add_to_manifest(self, body):
        if self.session:
            statement = blake(
                b"fl update 1" + bytes(5) + self.session
                + struct.pack("<QQQ", body[6], body[7], body[3]) + body[5]
                + struct.pack("<QQdQQQ", body[9], 0, body[8], 0, 0, 0)
                + sized(body.get(11, b"")))
            body[25] = raw_ed25519.sign(self.seed, statement)


# ---- "Sessions", "A round" ---------------------------------------------------

class Client:
    def __init__(self, url, name, data, key=None):
        self.name, self.data, self.key = name, data, key
        self.session = Session(url, self.hello)
        self.token = self.network = self.weights = None
        self.version, self.hash = 0, b""
        self.transfer, self.incoming, self.pending = 0, None, b""
        self.encoder = self.loss = self.sent = None
        self.is_done, self.counted, self.wait_until = False, 0, 0.
        self.handlers = {
            WELCOME: self.on_welcome, PLAN: self.on_plan,
            SCALE: self.on_scale, ACK: self.on_ack,
            EVALUATE: self.on_evaluate, WAIT: self.on_wait,
            REJECT: self.on_reject, DONE: self.on_done,
            MANIFEST: self.on_manifest, CHUNK: self.on_chunk,
            CHALLENGE: self.on_challenge}

    def hello(self):
        body = {1: 1, 2: 1, 3: self.name, 5: 3, 6: len(self.data)}
        if self.token:
            body[9] = self.token
        if self.hash:
            body[10], body[11] = self.version, self.hash
        if self.key:
            self.key.add_to_hello(body)
        return frame(HELLO, body)

    def on_challenge(self, message):
        if not self.key:
            raise SystemExit("a challenge, and no key")
        self.key.nonce = message[1]
        self.pending = self.hello()

    def run(self):
        while not self.is_done:
            if self.wait_until > time.monotonic():
                time.sleep(max(0., self.wait_until - time.monotonic()))
            data, self.pending = self.pending, b""
            body = self.session.exchange(data)
            if body is None:
                self.incoming = self.sent = None
                continue
            for kind, message in frames(body):
                handle = self.handlers.get(kind)
                if not handle:
                    raise SystemExit(f"a frame of type {kind}")
                handle(message)

    def say(self, kind, body):
        self.pending += frame(kind, body)

    def on_welcome(self, message):
        if message[6] != F32:
            raise SystemExit("the job's codec is not f32")
        self.token = message[3]
        self.network = Network(message[5])

    def on_manifest(self, message):
        self.incoming = message, bytearray()

    def on_chunk(self, body):
        transfer, offset = struct.unpack_from("<QQ", body)
        if not self.incoming or self.incoming[0][1] != transfer:
            return
        manifest, data = self.incoming
        if offset != len(data):
            raise SystemExit("a chunk is missing")
        data += body[16:]
        if len(data) < manifest[3]:
            return
        self.incoming = None
        digest = blake(data)
        if digest != manifest[5] or manifest[2] != MODEL:
            raise SystemExit("a model that is damaged, or of another kind")
        self.weights = list(struct.unpack(f"<{len(data) // 4}f", data))
        if len(self.weights) != sum(self.network.segments):
            raise SystemExit("a model of another size")
        self.version, self.hash = manifest[9], digest

    def on_plan(self, plan):
        if plan[11] != self.hash:
            self.say(GET_MODEL, {1: plan[10]})
            return
        key = plan[1], plan[2]
        if not self.encoder or self.encoder.key != key:
            trained, self.loss = train(self.network, self.weights, self.data,
                                       plan)
            update = f32([a - b for a, b in zip(trained, self.weights)])
            self.encoder = Encoder(self.network.segments, update,
                                   len(self.data), plan)
            self.encoder.key = key
        if plan[13] == 2:
            self.upload(plan[14], plan[15], plan.get(16, 0.), 1)
        else:
            self.say(NORM, {1: plan[1], 2: plan[2], 3: self.encoder.norms(),
                            4: len(self.data)})

    def on_scale(self, scale):
        if self.encoder and self.encoder.key == (scale[1], scale[2]):
            self.upload(scale[3], scale[4], scale[5], 0)

    def upload(self, seed, norms, clip, is_public):
        data = self.encoder.encode(seed, norms, clip, is_public)
        self.transfer += 1
        round_, attempt = self.encoder.key
        manifest = {1: self.transfer, 2: UPDATE, 3: len(data), 4: CHUNK_SIZE,
                    5: blake(data), 6: round_, 7: attempt,
                    8: Double(self.loss), 9: 0, 10: 0}
        if is_public:
            manifest[11] = bytes(2 * len(self.network.segments))
        self.sent = seed, norms, clip, is_public
        if self.key:
            self.key.add_to_manifest(manifest)
        self.say(MANIFEST, manifest)
        for at in range(0, len(data), CHUNK_SIZE):
            self.say(CHUNK, struct.pack("<QQ", self.transfer, at)
                     + data[at:at + CHUNK_SIZE])

    def on_ack(self, ack):
        if ack[3]:
            print(f"round {ack[1]}: reason {ack[3]}: {ack.get(4, '')}",
                  file=sys.stderr)
        elif self.encoder and self.encoder.key == (ack[1], ack[2]):
            self.counted += 1
            print(f"round {ack[1]}: counted, loss {self.loss:.4f}",
                  flush=True)

    def on_wait(self, wait):
        self.wait_until = time.monotonic() + wait[1] / 1000
        if self.sent:
            self.upload(*self.sent)

    def on_evaluate(self, message):
        if message[3] != self.hash:
            self.say(GET_MODEL, {1: message[2]})
            return
        total = correct = 0.
        for x, label in self.data:
            scores = self.network.forward(self.weights, x)[-1]
            total += self.network.loss(scores, label)[0]
            correct += scores.index(max(scores)) == label
        self.say(METRICS, {1: message[1], 2: message[2],
                           3: Double(total / len(self.data)),
                           4: int(correct), 5: len(self.data)})

    def on_reject(self, reject):
        raise SystemExit(f"rejected: {reject[1]} {reject.get(2, '')}")

    def on_done(self, done):
        if done[3] != self.hash:
            self.say(GET_MODEL, {1: done[2]})
            return
        self.is_done = True


def read_data(folder, index, participants):
    def read(name, head):
        with gzip.open(pathlib.Path(folder) / name) as file:
            return file.read()[head:]

    labels = read("train-labels-idx1-ubyte.gz", 8)
    pixels = read("train-images-idx3-ubyte.gz", 16)
    size = len(pixels) // len(labels)
    return [([float(v) for v in pixels[size * i:size * i + size]], labels[i])
            for i in range(index, len(labels), participants)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("url")
    parser.add_argument("id")
    parser.add_argument("data")
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--participants", type=int, default=1)
    parser.add_argument("--model-out", help="write the last model (f32 LE)")
    parser.add_argument("--key", type=pathlib.Path, help="secret key")
    args = parser.parse_args()
    data = read_data(args.data, args.index, args.participants)
    key = args.key and Key(bytes.fromhex(args.key.read_text())[:32])
    client = Client(args.url, args.id, data, key)
    client.run()
    if args.model_out:
        pathlib.Path(args.model_out).write_bytes(
            struct.pack(f"<{len(client.weights)}f", *client.weights))
    print(f"done: version {client.version}, {client.counted} updates counted")


if __name__ == "__main__":
    main()
