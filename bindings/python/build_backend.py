# SPDX-License-Identifier: Apache-2.0
"""meson-python with one change: the wheel's tag is py3-none-<platform>.

The package holds a shared library and no extension module, so a wheel fits
every Python 3 of its platform; meson-python tags whatever has platform files
for the very interpreter that it ran under.
"""
import base64
import hashlib
import pathlib
import zipfile

import mesonpy
from mesonpy import build_sdist as build_sdist
from mesonpy import (get_requires_for_build_sdist as
                     get_requires_for_build_sdist)
from mesonpy import (get_requires_for_build_wheel as
                     get_requires_for_build_wheel)


def build_wheel(wheel_directory, config_settings=None,
                metadata_directory=None):
    try:
        name = mesonpy.build_wheel(wheel_directory, config_settings,
                                   metadata_directory)
    finally:
        # meson-python leaves it in the source folder.
        pathlib.Path(".mesonpy-native-file.ini").unlink(missing_ok=True)
    return retag(pathlib.Path(wheel_directory) / name).name


def retag(path):
    """Rewrite a wheel under the tag py3-none-<its platform>."""
    distribution, version, _python, _abi, platform = path.stem.split("-")
    tag = f"py3-none-{platform}"
    target = path.with_name(f"{distribution}-{version}-{tag}.whl")
    if target == path:
        return path
    info = f"{distribution}-{version}.dist-info"
    with zipfile.ZipFile(path) as old:
        entries = [(item, old.read(item)) for item in old.infolist()]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        records = {}
        for item, data in entries:
            if item.filename == f"{info}/WHEEL":
                data = with_tag(data, tag)
                records[item.filename] = record_line(item.filename, data)
            if item.filename == f"{info}/RECORD":
                data = with_records(data, records)
            new.writestr(item, data, zipfile.ZIP_DEFLATED)
    path.unlink()
    return target


def with_tag(wheel, tag):
    lines = [line for line in wheel.decode().splitlines()
             if not line.startswith("Tag:")]
    return "\n".join([*lines, f"Tag: {tag}", ""]).encode()


def record_line(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"{name},sha256={digest.rstrip(b'=').decode()},{len(data)}"


def with_records(record, changed):
    """Replace the lines of files that changed; RECORD comes last."""
    lines = record.decode().splitlines()
    return "\n".join([changed.get(line.split(",")[0], line)
                      for line in lines] + [""]).encode()
