# SPDX-License-Identifier: Apache-2.0
"""Status codes as exceptions, import-time checks, facts about the build."""
import os
import subprocess
import sys

import numpy as np
import pytest

import libfl as fl
from libfl import _err, _lib


def test_every_code_has_a_class_of_its_own():
    lib = _lib.lib
    codes = [lib.fl_status_at(i) for i in range(lib.fl_status_count())]
    table = _err.table()
    assert set(codes) - {0} == set(table)
    assert len(set(table.values())) == len(table)
    for code, kind in table.items():
        assert kind.status == code
        assert kind.name == _lib.text(lib.fl_status_name(code))
        assert kind.meaning == _lib.text(lib.fl_status_text(code))
        # Written out, not made up at run time, and to be had from libfl.
        assert getattr(fl, kind.__name__) is kind


def test_classes_stand_in_the_band_of_their_code():
    for code, kind in _err.table().items():
        assert issubclass(kind, _err.band(code)), kind.__name__
        assert issubclass(kind, fl.FlError)


def test_unknown_codes_of_newer_libraries_get_the_bands_class():
    error = _err.from_status(-299, "fl_x", "")
    assert type(error) is fl.ResourceError and error.status == -299
    assert fl.ResourceError.status == 0


def test_message_is_the_librarys_detail():
    with pytest.raises(fl.ArgumentError) as caught:
        fl.Model([fl.Tensor("same", [1]), fl.Tensor("same", [1])])
    assert "same" in str(caught.value)
    assert caught.value.name == "FL_E_ARGUMENT"
    assert caught.value.function == "fl_model_builder_tensor"


def test_errors_are_pythons_own_kinds_too():
    assert issubclass(fl.NomemError, MemoryError)
    assert issubclass(fl.NotFoundError, LookupError)
    assert issubclass(fl.DimError, ValueError)
    with pytest.raises(ValueError):
        fl.Compressor(8, fl.CodecOptions(bits=77))


def test_memory_cap_raises_memory_error():
    with fl.Context(memory_cap=10_000) as context:
        with pytest.raises(MemoryError):
            fl.Model([fl.Tensor("big", [1 << 20])], context=context)
        assert context.memory == 0


def test_version_and_features():
    assert fl.version() == fl.__version__
    assert fl.version() in fl.build_info()
    assert fl.has_feature(fl.Feature.THC)
    assert len(fl.protocol_versions()) >= 1


@pytest.mark.parametrize("library, complaint", [
    ("libm.so.6", "is no libfl"), ("/nowhere/libfl.so", "cannot load")])
def test_import_refuses_another_library(library, complaint):
    result = subprocess.run(
        [sys.executable, "-c", "import libfl"], stderr=subprocess.PIPE,
        text=True, env={**os.environ, "LIBFL_LIBRARY": library})
    assert result.returncode != 0
    assert "ImportError" in result.stderr and complaint in result.stderr


def test_import_refuses_another_version(tmp_path):
    source = tmp_path / "other.c"
    source.write_text("unsigned fl_version_number(void) { return 2000; }\n")
    library = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library],
                   check=True)
    result = subprocess.run(
        [sys.executable, "-c", "import libfl"], stderr=subprocess.PIPE,
        text=True, env={**os.environ, "LIBFL_LIBRARY": str(library)})
    assert result.returncode != 0
    assert "is version 0.2, want 0.1" in result.stderr


def test_not_finite_weights_are_refused(context):
    with fl.Model([fl.Tensor("w", [3])], context=context) as model:
        with pytest.raises(fl.NotFiniteError):
            model.set_weights([1, np.nan, 2])
        assert (model.weights == 0).all()
