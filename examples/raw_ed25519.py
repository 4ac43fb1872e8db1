# SPDX-License-Identifier: Apache-2.0
"""Ed25519 signatures (RFC 8032) in pure Python, for raw_client.py. It is slow,
and takes a time that depends on the key: do not sign where others can measure.
"""
import hashlib

P = 2 ** 255 - 19
ORDER = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def _base():
    """The point whose y is 4/5, and whose x is even."""
    y = 4 * pow(5, P - 2, P) % P
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x if x % 2 == 0 else P - x), y


def _add(a, b):
    """Points as X : Y : Z : T with x = X/Z, y = Y/Z, xy = T/Z."""
    left = (a[1] - a[0]) * (b[1] - b[0]) % P
    right = (a[1] + a[0]) * (b[1] + b[0]) % P
    across = 2 * a[3] * b[3] * D % P
    along = 2 * a[2] * b[2] % P
    e, f, g, h = right - left, along - across, along + across, right + left
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n, point):
    total = 0, 1, 1, 0
    while n:
        if n & 1:
            total = _add(total, point)
        point = _add(point, point)
        n >>= 1
    return total


def _pack(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_X, _Y = _base()
BASE = _X, _Y, 1, _X * _Y % P


def _number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def _expand(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar &= (1 << 254) - 8
    return scalar | 1 << 254, digest[32:]


def public_key(seed):
    """The public half of the key with these 32 bytes."""
    return _pack(_times(_expand(seed)[0], BASE))


def sign(seed, message):
    """64 bytes that only who has the seed can make."""
    scalar, prefix = _expand(seed)
    public = public_key(seed)
    nonce = _number(prefix, message) % ORDER
    point = _pack(_times(nonce, BASE))
    challenge = _number(point, public, message)
    answer = (nonce + challenge * scalar) % ORDER
    return point + answer.to_bytes(32, "little")
