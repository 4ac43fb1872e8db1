# SPDX-License-Identifier: Apache-2.0
"""ActivationCache and the storage in a folder behind it."""
import errno
import gc
import os
import resource
import signal

import numpy as np
import pytest

import libfl as fl
from libfl import _err, _lib, _storage

TAG = bytes(range(32))
KEY = bytes(reversed(range(32)))


@pytest.fixture
def rows(rng):
    """Rows of 10 samples."""
    return rng.standard_normal((10, 33)).astype(np.float32)


@pytest.fixture
def full(rows):
    """Return a function that makes a cache with the rows of `rows` in it."""
    def make(**options):
        cache = fl.ActivationCache(**options)
        cache.begin(TAG, *rows.shape)
        cache.put(np.arange(len(rows)), rows)
        return cache
    return make


def test_rows_come_back_bit_for_bit_in_any_order(full, rows):
    ids = [7, 0, 9, 7]
    with full() as cache:
        assert np.array_equal(cache.get(ids), rows[ids])
        out = np.empty((4, 33), np.float32)
        assert cache.get(np.array(ids, np.int32), out=out) is out
        assert np.array_equal(out, rows[ids])


@pytest.mark.parametrize("dtype", ["f16", "i8", fl.CacheDtype.I8])
def test_smaller_types_are_within_their_bounds(full, rows, dtype):
    with full(dtype=dtype) as cache, full() as whole:
        got = cache.get(range(10))
        assert cache.status.bytes < whole.status.bytes
    if dtype == "f16":
        assert np.array_equal(got, rows.astype(np.float16))
    else:
        bound = np.abs(rows).max(axis=1, keepdims=True) / 253
        assert (np.abs(got - rows) <= bound).all()
        assert not np.array_equal(got, rows)


def test_a_missing_row_is_none_and_counted(full, rows):
    with fl.ActivationCache() as cache:
        cache.begin(TAG, *rows.shape)
        cache.put([1, 2], rows[[1, 2]])
        assert cache.get([1, 3]) is None
        assert cache.has([1, 2]) and not cache.has([1, 3])
        assert np.array_equal(cache.get(1), rows[[1]])
        assert (cache.status.hits, cache.status.misses) == (1, 2)
        assert len(cache) == 2


def test_another_tag_forgets_and_the_same_does_not(full):
    with full() as cache:
        cache.begin(TAG, 10, 33)
        assert len(cache) == 10
        cache.begin(KEY, 10, 33)
        assert len(cache) == 0 and cache


@pytest.mark.parametrize("key", [None, KEY])
def test_file_outlives_the_cache(full, rows, tmp_path, key):
    path = tmp_path / "outputs"
    full(path=path, key=key).close()
    assert path.stat().st_mode & 0o777 == 0o600
    is_plain = rows[3, 5:9].tobytes() in path.read_bytes()
    assert is_plain == (key is None)
    with fl.ActivationCache(path=path, key=key) as cache:
        cache.begin(TAG, 10, 33)
        cache.prefetch([1, 2, 8])
        assert np.array_equal(cache.get(range(10)), rows)
        cache.flush()
    with fl.ActivationCache(path=path, key=TAG) as cache:
        cache.begin(TAG, 10, 33)
        assert len(cache) == 0


def test_data_of_another_data_set_is_not_there(full, tmp_path):
    path = tmp_path / "outputs"
    full(path=path, data_tag=KEY).close()
    with fl.ActivationCache(path=path) as cache:
        cache.begin(TAG, 10, 33)
        assert len(cache) == 0


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_truncated_file_counts_as_empty(full, tmp_path, size):
    path = tmp_path / "outputs"
    full(path=path).close()
    os.truncate(path, size)
    with fl.ActivationCache(path=path) as cache:
        cache.begin(TAG, 10, 33)
        assert len(cache) == 0


def test_damaged_row_is_missing(full, tmp_path):
    path = tmp_path / "outputs"
    full(path=path).close()
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with fl.ActivationCache(path=path) as cache:
        cache.begin(TAG, 10, 33)
        assert cache.get(range(9)) is not None
        assert cache.get(9) is None


def test_wipe_removes_the_file(full, tmp_path):
    path = tmp_path / "outputs"
    with full(path=path, key=KEY) as cache:
        cache.wipe()
        assert not path.exists() and not cache.is_on
        with pytest.raises(fl.NotAllowedError, match="wiped"):
            cache.begin(TAG, 10, 33)


def test_cap_turns_it_off(rows):
    with fl.ActivationCache(byte_cap=1000) as cache:
        with pytest.raises(fl.LimitError, match="the cap is 1000"):
            cache.begin(TAG, *rows.shape)
        assert not cache.is_on
        with pytest.raises(fl.NotAllowedError, match="off"):
            cache.put([0], rows[:1])


def test_full_disk_is_the_systems_error(tmp_path):
    path = tmp_path / "outputs"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
            with fl.ActivationCache(path=path) as cache:
                try:
                    cache.begin(TAG, 1000, 1000)
                except OSError as error:
                    is_right = (error.errno == errno.EFBIG
                                and not cache.is_on and not path.exists())
                    cache.begin(TAG, 10, 10)
                    code = 0 if is_right and cache.is_on else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_link_in_the_files_place_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "outputs").symlink_to(target)
    with fl.ActivationCache(path=tmp_path / "outputs") as cache:
        with pytest.raises(OSError):
            cache.begin(TAG, 10, 33)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("options, error", [
    ({"dtype": "f64"}, ValueError), ({"dtype": 9}, ValueError),
    ({"key": b"short"}, ValueError), ({"data_tag": b""}, ValueError),
    ({"byte_cap": -1}, ValueError), ({"byte_cap": 2**64 + 4096}, ValueError),
    ({"path": "no/such/folder"}, OSError)])
def test_wrong_options_are_refused(options, error):
    with pytest.raises(error):
        fl.ActivationCache(**options)


def test_names_that_are_none_are_refused(tmp_path):
    with pytest.raises(fl.OptionsError, match="name"):
        fl.ActivationCache(path=tmp_path / "Upper")
    with fl.ActivationCache(path=tmp_path / ".hidden") as cache:
        with pytest.raises(ValueError, match="no dot first"):
            cache.begin(TAG, 1, 1)


def test_path_and_context_exclude_each_other(tmp_path, context):
    with pytest.raises(ValueError, match="context"):
        fl.ActivationCache(path=tmp_path / "outputs", context=context)


def test_wrong_arguments_are_refused_by_name(full, rows):
    with full() as cache:
        for ids, error in (([10], fl.RangeError), ([-1], ValueError),
                           ([0.5], TypeError), ([[1]], ValueError)):
            with pytest.raises(error):
                cache.get(ids)
            with pytest.raises(error):
                cache.put(ids, rows[:1])
        with pytest.raises(ValueError, match="rows: got 33 values"):
            cache.put([1, 2], rows[:1])
        with pytest.raises(fl.NotFiniteError):
            cache.put([1], np.full((1, 33), np.nan))
        with pytest.raises(ValueError, match="tag: got 3 bytes"):
            cache.begin(b"abc", 1, 1)
        with pytest.raises(ValueError, match="n_samples"):
            cache.begin(TAG, -1, 1)
        assert len(cache) == 10


def test_memory_is_the_contexts(full, context):
    cache = full(context=context)
    assert context.memory >= cache.status.bytes
    cache.close()
    assert context.memory == 0


def test_repr_says_what_is_there(full, tmp_path):
    cache = full()
    assert repr(cache) == (
        "<libfl.ActivationCache f32 in memory: 10 of 10 rows of 33 values, "
        f"{cache.status.bytes} bytes>")
    cache.close()
    assert "closed" in repr(cache)
    with fl.ActivationCache(path=tmp_path / "outputs", dtype="i8") as cache:
        assert repr(cache) == (f"<libfl.ActivationCache i8 in "
                               f"'{tmp_path / 'outputs'}': off>")


def test_no_mapping_is_left_behind(full, tmp_path):
    path = tmp_path / "outputs"

    def is_mapped():
        with open("/proc/self/maps") as maps:
            return str(path) in maps.read()

    cache = full(path=path)
    assert is_mapped()
    cache.close()
    gc.collect()
    assert not is_mapped()


def test_blobs_of_a_folder_are_replaced_as_a_whole(tmp_path):
    storage = _storage.folder_storage(tmp_path / "made")
    size, part = _lib.c_uint64(), np.zeros(3, np.uint8)

    def read(offset):
        return storage.read(None, b"state", offset, part.ctypes.data, 3)

    assert storage.size(None, b"state", _lib.byref(size)) == _err.NOT_FOUND
    assert read(0) == _err.NOT_FOUND
    for text in (b"first, and longer", b"second"):
        content = np.frombuffer(text, np.uint8)
        assert storage.write(None, b"state", content.ctypes.data,
                             len(text)) == 0
        assert storage.size(None, b"state", _lib.byref(size)) == 0
        assert size.value == len(text)
    assert read(2) == 0 and part.tobytes() == b"con"
    assert storage.sync(None) == 0
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["state"]
    # What fails is kept for the call that C code runs under.
    assert read(4) == _err.CALLBACK
    with pytest.raises(OSError, match="ends too early"):
        fl.ActivationCache().flush()
    assert storage.remove(None, b"state") == 0
    assert storage.remove(None, b"state") == 0
