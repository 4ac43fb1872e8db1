# SPDX-License-Identifier: Apache-2.0
"""The declarations in _lib.py against the headers, as a C compiler reads
them: struct layouts, signatures, enumerators, exported symbols."""
import ctypes
import re
import subprocess

import pytest

import libfl
from libfl import _lib

HEADERS = ["base", "model", "layers", "train", "weights", "idx", "compress",
           "feedback", "cache", "freeze", "cohort", "embedding", "slices",
           "protocol", "store", "strategy", "channel", "paged", "client",
           "server", "selection"]


def camel(name):
    """fl_fit_options -> FitOptions."""
    return "".join(map(str.capitalize, name.split("_")[1:]))


@pytest.fixture(scope="module")
def headers(request):
    """The public headers' text without comments and preprocessor lines."""
    folder = request.config.rootpath / "include" / "fl"
    text = "\n".join((folder / f"{name}.h").read_text() for name in HEADERS)
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"\\\n", " ", text)
    return re.sub(r"^#.*$", "", text, flags=re.M)


@pytest.fixture(scope="module")
def structs(headers):
    """{C name: [field names]} of every struct with a body."""
    found = {}
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);",
                                 headers, re.S):
        fields = []
        for line in body.split(";"):
            function = re.search(r"\(\*(\w+)\)\(", line)
            plain = re.search(r"(\w+)\s*(\[\w+\])?\s*$", line)
            if function:
                fields.append(function.group(1))
            elif plain:
                fields.append(plain.group(1))
        found[name] = fields
    return found


@pytest.fixture(scope="module")
def functions(headers):
    """{name: (return type, [parameter types])} of every public function."""
    found = {}
    for result, name, parameters in re.findall(
            r"FL_API\s+([\w\s]+?[\s*]+)(fl_\w+)\s*\(([^;]*)\);", headers):
        found[name] = (c_type(result), [
            c_type(re.sub(r"\w+\s*\[\w+\]$", "*", parameter.strip())
                   if parameter.strip().endswith("]")
                   else re.sub(r"\w+$", "", parameter.strip()))
            for parameter in parameters.split(",")
            if parameter.strip() != "void"])
    return found


def c_type(text):
    """Drop const and spaces: `const fl_model *` -> `fl_model*`."""
    return re.sub(r"\bconst\b|\s", "", text)


def ctypes_type(name):
    """The ctypes type that a C type is declared as."""
    plain = {
        "void": None, "fl_status": ctypes.c_int32, "int32_t": ctypes.c_int32,
        "uint8_t": ctypes.c_uint8, "uint16_t": ctypes.c_uint16,
        "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64,
        "size_t": ctypes.c_size_t, "float": ctypes.c_float,
        "double": ctypes.c_double, "char*": ctypes.c_char_p,
        "void*": ctypes.c_void_p}
    if name in plain:
        return plain[name]
    if name.endswith("_fn"):
        return getattr(_lib, camel(name))
    if (name.endswith("*") and name[:-1].startswith("fl_")
            and name[:-1] not in plain):
        kind = getattr(_lib, camel(name[:-1].rstrip("*")))
        if issubclass(kind, ctypes.Structure):
            kind = ctypes.POINTER(kind)
        for _ in range(name.count("*") - 1):
            kind = ctypes.POINTER(kind)
        return kind
    assert name.endswith("*"), name
    return ctypes.POINTER(ctypes_type(name[:-1]))


def test_struct_layouts_are_the_compilers(structs, root, tmp_path):
    lines = []
    for name, fields in structs.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'printf("{name}.{field} %zu\\n", offsetof({name}, '
                  f'{field}));' for field in fields]
    source = tmp_path / "layout.c"
    source.write_text("#include <fl/fl.h>\n#include <stdio.h>\n"
                      "int main(void) {\n" + "\n".join(lines)
                      + "\nreturn 0;\n}\n")
    program = tmp_path / "layout"
    subprocess.run(["cc", "-std=c11", "-I", root / "include", source, "-o",
                    program], check=True)
    printed = subprocess.run([program], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    expected = {}
    for name, fields in structs.items():
        kind = getattr(_lib, camel(name))
        expected[name] = ctypes.sizeof(kind)
        assert [field[0] for field in kind._fields_] == fields
        for field in fields:
            expected[f"{name}.{field}"] = getattr(kind, field).offset
    got = {key: int(value) for key, value in
           (line.split() for line in printed.splitlines())}
    assert got == expected
    assert len(structs) == 71


def test_every_struct_declared_is_in_the_headers(structs):
    declared = {name for name, value in vars(_lib).items()
                if isinstance(value, type)
                and issubclass(value, ctypes.Structure)
                and value not in (ctypes.Structure, _lib.Struct)}
    assert declared == {camel(name) for name in structs}


def test_signatures_are_the_headers(functions):
    declared = {name: (ctypes.c_int32, argtypes)
                for name, argtypes in _lib.CHECKED.items()}
    declared.update(_lib.PLAIN)
    expected = {name: (ctypes_type(result), [ctypes_type(parameter)
                                             for parameter in parameters])
                for name, (result, parameters) in functions.items()}
    assert set(declared) == set(expected)
    for name, signature in declared.items():
        assert signature == expected[name], name


def test_every_status_is_checked(functions):
    returns_status = {name for name, (result, _) in functions.items()
                      if result == "fl_status"}
    # fl_status_at returns a code as its value.
    assert set(_lib.CHECKED) == returns_status - {"fl_status_at"}
    for name in _lib.CHECKED:
        assert getattr(_lib.lib, name).errcheck is _lib._check


def test_calls_release_the_gil():
    assert not _lib.lib._FuncPtr._flags_ & ctypes._FUNCFLAG_PYTHONAPI


def test_every_exported_symbol_has_argtypes(root):
    exported = re.findall(r"^\s+(fl_\w+);$",
                          (root / "lib" / "libfl.map").read_text(), re.M)
    assert len(exported) > 100
    for name in exported:
        assert getattr(_lib.lib, name).argtypes is not None, name
    assert set(exported) == set(_lib.CHECKED) | set(_lib.PLAIN)


def test_embeddings_enumerators_are_the_headers(headers):
    constants = {name: int(value) for name, value in re.findall(
        r"\bFL_EMBEDDING_(\w+) = (\d+)", headers)}
    for name in ("MAX_CHUNKS", "MAX_TABLES"):
        constants.pop(name)
    kinds = (libfl.BagMode, libfl.EmbeddingPrecision,
             libfl.EmbeddingOptimiser)
    assert {member.name: member.value for kind in kinds
            for member in kind} == constants


@pytest.mark.parametrize("kind, prefix", [
    (libfl.Codec, "FL_CODEC_"), (libfl.ThcMode, "FL_THC_"),
    (libfl.Dtype, "FL_DTYPE_"), (libfl.CacheDtype, "FL_CACHE_"), (libfl.Weighting, "FL_WEIGHT_"),
    (libfl.ScaleMode, "FL_SCALE_"), (libfl.Feature, "FL_FEATURE_"),
    (libfl.FreezeReason, "FL_FREEZE_REASON_"),
    (libfl.FreezeWants, "FL_FREEZE_WANTS_"),
    (libfl.ClientEventKind, "FL_CLIENT_"),
    (libfl.ServerEventKind, "FL_SERVER_")])
def test_enumerators_are_the_headers(headers, kind, prefix):
    constants = {name: int(value) for name, value in re.findall(
        rf"\b{prefix}(\w+) = (\d+)", headers)}
    for name in ("BLOCK", "ID_BYTES", "KEY_BYTES"):
        constants.pop(name, None)
    assert {member.name: member.value for member in kind} == constants


def test_freeze_enumerators_are_the_headers(headers):
    constants = {name: int(value) for name, value in re.findall(
        r"\bFL_FREEZE_((?!REASON_|WANTS_)\w+) = (\d+)", headers)}
    assert constants == {
        member.name: member.value
        for kind in (libfl.FreezeCriterion, libfl.FreezePreset,
                     libfl.FreezeEventKind) for member in kind}


def test_reject_reasons_are_the_librarys():
    for reason in libfl.RejectReason:
        name = _lib.text(_lib.lib.fl_reject_name(int(reason)))
        assert name == f"FL_REJECT_{reason.name}"
        assert reason.text
    after = max(libfl.RejectReason) + 1
    assert _lib.lib.fl_reject_name(after) == b"FL_REJECT_?"
    # A newer peer may send it.
    newer = libfl.RejectReason(after)
    assert newer == after and newer.name == f"REASON_{after}" and newer.text
    assert newer not in list(libfl.RejectReason)


def test_constants_are_the_headers(headers):
    for name, value in (("FL_MAX_DIMS", _lib.MAX_DIMS),
                        ("FL_HASH_BYTES", _lib.HASH_BYTES),
                        ("FL_SEED_BYTES", _lib.SEED_BYTES),
                        ("FL_CACHE_KEY_BYTES", _lib.CACHE_KEY_BYTES)):
        assert re.search(rf"\b{name} = {value}\b", headers), name


def test_init_keeps_the_size_and_sets_defaults():
    options = _lib.init(_lib.JobOptions)
    assert options.struct_size == ctypes.sizeof(_lib.JobOptions)
    assert options.steps_kept == 8
    assert _lib.init(_lib.ClientOptions).max_weights == 2**28
    assert _lib.init(_lib.ServerOptions).staging_cap == 256 * 2**20
    assert _lib.init(_lib.CompressorOptions).bits == 4
    assert _lib.init(_lib.FitOptions).progress_every == 100
    assert _lib.init(_lib.EncodeOptions).samples == 1
