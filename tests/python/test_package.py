# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: files, wheel tag, type hints."""
import base64
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import shutil
import subprocess
import zipfile

import pytest

import libfl


@pytest.fixture
def distribution():
    try:
        return importlib.metadata.distribution("libfl")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")


@pytest.fixture
def backend(root):
    path = root / "bindings" / "python" / "build_backend.py"
    spec = importlib.util.spec_from_file_location("build_backend", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_installed_package_holds_its_library_and_nothing_else(distribution):
    names = sorted(str(path) for path in distribution.files
                   if path.suffix != ".pyc")
    ours = [name for name in names if not name.startswith("libfl-")]
    assert all(name.startswith("libfl/") for name in ours), names
    assert "libfl/libfl.so" in ours and "libfl/py.typed" in ours
    assert distribution.version == libfl.__version__


def test_every_module_of_the_source_is_installed(distribution, root):
    source = root / "bindings" / "python" / "src" / "libfl"
    installed = {path.name for path in distribution.files
                 if path.suffix == ".py"}
    assert {path.name for path in source.glob("*.py")} == installed


def test_installed_wheel_fits_every_python_3(distribution):
    tags = [line for line in distribution.read_text("WHEEL").splitlines()
            if line.startswith("Tag:")]
    assert len(tags) == 1 and tags[0].startswith("Tag: py3-none-linux_")


def test_retagged_wheels_are_consistent(backend, tmp_path):
    files = {"pkg/__init__.py": b"x = 1\n",
             "pkg-1.0.dist-info/WHEEL":
             b"Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n"}
    record = [backend.record_line(name, data)
              for name, data in files.items()]
    files["pkg-1.0.dist-info/RECORD"] = "\n".join(
        [*record, "pkg-1.0.dist-info/RECORD,,", ""]).encode()
    wheel = tmp_path / "pkg-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path = backend.retag(wheel)
    assert path.name == "pkg-1.0-py3-none-linux_x86_64.whl"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with zipfile.ZipFile(path) as archive:
        assert b"Tag: py3-none-linux_x86_64\n" in archive.read(
            "pkg-1.0.dist-info/WHEEL")
        for line in archive.read("pkg-1.0.dist-info/RECORD").decode(
                ).splitlines():
            name, digest, size = line.split(",")
            if not digest:
                continue
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(
                hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(data))
    assert backend.retag(path) == path


def test_type_hints_are_complete(root, tmp_path):
    mypy = shutil.which("mypy")
    if mypy is None:
        pytest.skip("mypy is not installed")
    package = root / "bindings" / "python" / "src" / "libfl"
    result = subprocess.run(
        [mypy, "--strict", "--cache-dir", tmp_path, package], text=True,
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout


def test_public_names_are_there_and_documented():
    for name in libfl.__all__:
        value = getattr(libfl, name)
        if isinstance(value, type) and not issubclass(value, Exception):
            assert value.__doc__, name


def test_only_lib_touches_ctypes():
    folder = pathlib.Path(libfl.__file__).parent
    for path in folder.glob("*.py"):
        if (path.name not in ("_lib.py", "_signatures.py")
                and not path.name.startswith("_structs")):
            assert "import ctypes" not in path.read_text(), path.name
            assert "from ctypes" not in path.read_text(), path.name
