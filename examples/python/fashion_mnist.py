# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST for the other examples: IDX files as MNIST has them."""
import pathlib
import sys

import libfl as fl

FOLDER = "/usr/share/datasets/fashion-mnist"
NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
         "sneaker", "bag", "ankle boot"]


def count(text):
    """An argument that is a number >= 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def read(folder, part, samples=None):
    """Return images [n, 28, 28] and labels [n] of "train" or "t10k", the
    first `samples` of them; files may be gzipped. Without them the program
    ends and says what is missing."""
    arrays = []
    for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        plain = pathlib.Path(folder) / name
        packed = plain.with_name(name + ".gz")
        path = plain if plain.exists() else packed
        if not path.exists():
            sys.exit(f"{packed} is missing, and so is {name}.\n"
                     f"Debian: apt install dataset-fashion-mnist; elsewhere: "
                     f"the four files of any data set in MNIST's form, and "
                     f"their folder as an argument.")
        arrays.append(fl.read_idx(path)[:samples])
    return tuple(arrays)
