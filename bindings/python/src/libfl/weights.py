# SPDX-License-Identifier: Apache-2.0
"""A model's tensors in files: safetensors by the library, .npz by numpy."""
from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import zipfile
from typing import IO, Any, Iterator, Mapping, Union

import numpy as np
import numpy.typing as npt

from . import _err, _lib, _np
from ._handle import Handle
from ._lib import byref, lib
from ._np import F32Array

# A path, or an open binary file.
File = Union[str, "os.PathLike[str]", IO[bytes]]

# numpy has no type hints for it.
_npy: Any = np.lib.format

_ALLOW_MISSING, _ALLOW_EXTRA = 1, 2
_SAME_SCHEMA: dict[int, bool | None] = {0: None, 1: True, 2: False}


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a file had for a model: names of tensors that were taken and that
    were missing, how many more it had, how many of those taken were no
    float32. `is_same_schema`: None when the file does not say whose it is.
    """

    loaded: list[str]
    missing: list[str]
    extra: int
    converted: int
    is_same_schema: bool | None


class WeightFiles(Handle, Mapping[str, F32Array]):
    """The part of Model that writes and reads files."""

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        raise NotImplementedError

    def _unseen(self) -> Any:
        raise NotImplementedError

    def save_weights(self, file: File,
                     notes: Mapping[str, str] | None = None) -> None:
        """Write all tensors as a safetensors file, which PyTorch's tools
        read. A path's old file stays until the new one is whole.
        NotFiniteError names the tensor; ConflictError: one is called
        "__metadata__". `notes`: more metadata, in printable ASCII."""
        texts = [_lib.WeightsNote(name.encode(), text.encode())
                 for name, text in (notes or {}).items()]
        array = (_lib.WeightsNote * len(texts))(*texts)
        with opened(file, "wb") as stream:
            writer = _lib.writer_of(stream)
            lib.fl_model_save_weights_with(self._handle, array, len(texts),
                                           byref(writer))

    def load_weights(self, file: File, *, strict: bool = True) -> LoadReport:
        """Set tensors by name from a safetensors file, all or nothing; F16,
        BF16 and F64 are converted. `strict` wants all tensors of the model
        and no other; without it at least one. An open file is read to its
        end. SchemaError: names; DimError: a shape; UnsupportedError: a dtype;
        NotFiniteError: a value; FormatError, RangeError, TruncatedError,
        TooLargeError: malformed. The optimiser's state stays."""
        report = _lib.init(_lib.LoadReport)
        taken = np.zeros(max(len(self), 1), np.uint8)
        report.is_loaded = taken.ctypes.data_as(_lib.U8P)
        report.capacity = len(self)
        flags = 0 if strict else _ALLOW_MISSING | _ALLOW_EXTRA
        with opened(file, "rb") as stream:
            reader = _lib.reader_of(stream)
            lib.fl_model_load_weights(self._handle, byref(reader), flags,
                                      byref(report))
        return LoadReport([name for name, hit in zip(self, taken) if hit],
                          [name for name, hit in zip(self, taken) if not hit],
                          report.n_extra, report.n_converted,
                          _SAME_SCHEMA[report.schema])

    def save_checkpoint(self, file: File) -> None:
        """Write all that training goes on from: tensors, optimiser and its
        state, updates, first_active, what was accumulated, where a fit is; not
        the hook nor the memory limit. A path's old file stays until the new
        one is whole. A progress function may do so, too. NotFiniteError: a
        weight, a moment or a gradient; TooLargeError: above 2**30 values."""
        with opened(file, "wb") as stream:
            writer = _lib.writer_of(stream)
            lib.fl_model_save_checkpoint(self._handle, byref(writer))

    def load_checkpoint(self, file: File) -> None:
        """Take it back, all or nothing, into a model of the same schema
        (SchemaError); what was accumulated is dropped. `fit` with the same
        data and options and resume=True then goes on at the step where it was
        written. PeerDataError: it is damaged, or no checkpoint."""
        with opened(file, "rb") as stream:
            reader = _lib.reader_of(stream)
            lib.fl_model_load_checkpoint(self._unseen(), byref(reader))

    def save_npz(self, file: File) -> None:
        """Write all tensors as an .npz archive for numpy.load. A path's old
        file stays until the new one is whole."""
        with opened(file, "wb") as stream, \
                zipfile.ZipFile(stream, "w") as archive:
            # As numpy.savez, which cannot have an array called "file".
            for name, value in self.items():
                with archive.open(f"{name}.npy", "w",
                                  force_zip64=True) as member:
                    _npy.write_array(member, value, allow_pickle=False)

    def load_npz(self, file: File, *, strict: bool = True) -> LoadReport:
        """Set tensors by name from an .npz archive, all or nothing, as
        load_weights does. Arrays of Python objects are refused. ValueError:
        names or a shape; NotFiniteError; zipfile.BadZipFile: no archive."""
        with opened(file, "rb") as stream, \
                zipfile.ZipFile(stream) as archive:
            members = _members(archive)
            loaded = [name for name in self if name in members]
            missing = [name for name in self if name not in members]
            extra = len(members) - len(loaded)
            if not loaded or (strict and (missing or extra)):
                wrong = sorted(set(members) ^ set(self))
                raise ValueError(f"npz: names do not agree: {wrong}")
            arrays = {name: _read(archive, members[name]) for name in loaded}
        values = {name: _checked(name, array, self[name].shape)
                  for name, array in arrays.items()}
        for name, value in values.items():
            self[name] = value
        converted = sum(array.dtype != np.float32
                        for array in arrays.values())
        return LoadReport(loaded, missing, extra, converted, None)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays by name."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename[:-len(".npy")]
        if not member.filename.endswith(".npy") or name in found:
            raise ValueError(f"npz: {member.filename!r} is no array, or "
                             f"stands twice")
        found[name] = member
    return found


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo
          ) -> np.ndarray[Any, Any]:
    with archive.open(member) as stream:
        array: np.ndarray[Any, Any] = _npy.read_array(stream,
                                                      allow_pickle=False)
        return array


def _checked(name: str, array: np.ndarray[Any, Any],
             shape: tuple[int, ...]) -> F32Array:
    """Return an array that can be set without fail."""
    if array.shape != shape:
        raise ValueError(f"{name}: got shape {list(array.shape)}, "
                         f"want {list(shape)}")
    value = _np.f32(array, name)
    if not np.isfinite(value).all():
        raise _err.NotFiniteError(f"{name}: a value is not finite",
                                  "load_npz")
    return value


@contextlib.contextmanager
def opened(file: File, mode: str) -> Iterator[IO[bytes]]:
    """Open a path, or pass an open file on. What is written goes to a file
    beside the path, which then takes its place."""
    if not isinstance(file, (str, os.PathLike)):
        yield file
    elif mode == "rb":
        with open(file, "rb") as stream:
            yield stream
    else:
        path = pathlib.Path(file)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(part, "wb") as stream:
                yield stream
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
