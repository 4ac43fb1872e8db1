# SPDX-License-Identifier: Apache-2.0
"""The mean of many vectors, sent at 4 bits a coordinate.

Every worker measures its vector, all agree on the largest norms, every
worker encodes, and whoever is in the middle adds bytes without decoding them.
Prints the size and the error next to plain float32.
"""
import numpy as np
import libfl as fl

WORKERS, DIM = 16, 200_000


def main():
    rng = np.random.default_rng(7)
    common = rng.standard_normal(DIM)
    vectors = [(common + 0.3 * rng.standard_normal(DIM)).astype(np.float32)
               for _ in range(WORKERS)]
    mean = np.mean(vectors, axis=0)
    for codec in ("f32", "bf16", "thc"):
        with fl.Compressor(DIM, codec) as compressor:
            scale = fl.Scale(slots=WORKERS, noise_seed=rng.bytes(32))
            scale.norms = fl.merge_norms(compressor.measure(x, scale)
                                         for x in vectors)
            with compressor.partial(scale) as total:
                for slot, x in enumerate(vectors):
                    update = compressor.encode(x, scale, slot=slot)
                    total.add(update)
                decoded = compressor.decode(total.to_bytes(), scale)
        error = np.linalg.norm(decoded - mean) / np.linalg.norm(mean)
        print(f"{codec:4}  {8 * len(update) / DIM:5.2f} bits a coordinate, "
              f"relative error of the mean {error:.1e}")


if __name__ == "__main__":
    main()
