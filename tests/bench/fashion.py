# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST from the Debian package dataset-fashion-mnist."""
import gzip
import pathlib

import numpy as np

FOLDER = "/usr/share/datasets/fashion-mnist"


def _read(path, dimensions):
    """An IDX file of bytes: magic number, sizes, values."""
    data = gzip.decompress(path.read_bytes())
    header = np.frombuffer(data, ">u4", 1 + dimensions)
    if header[0] != 0x800 + dimensions:
        raise ValueError(f"{path}: magic number: got {header[0]:#x}, "
                         f"want {0x800 + dimensions:#x}")
    values = np.frombuffer(data, np.uint8, offset=4 * (1 + dimensions))
    return values.reshape(tuple(header[1:]))


def load(part, folder=FOLDER):
    """(images, uint8 [n, 28, 28]; labels, int32 [n]) of `part`, "train" or
    "t10k"."""
    folder = pathlib.Path(folder)
    try:
        images = _read(folder / f"{part}-images-idx3-ubyte.gz", 3)
        labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename}: not found; want Fashion-MNIST "
                         "(Debian: dataset-fashion-mnist) or --images "
                         "FOLDER") from None
    return images, labels.astype(np.int32)
