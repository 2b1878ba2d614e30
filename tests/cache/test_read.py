import copy
import json
import os
import pickle
import shutil
import threading
import time
import zlib
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest

import patchflow as pf
from patchflow.cache import handles as handles_module
from patchflow.cache import layout as layout_module
from patchflow.cache import storage as storage_module
from patchflow.cache.handles import handles
from patchflow.cache.manifest import Manifest, write_manifest

L = pf.PatchLocation
AFFINE = np.diag([0.5, 2.0, 3.0, 1.0])


def subject(name="s", shape=(20, 30, 25), seed=0, **metadata):
    rng = np.random.default_rng(seed)
    return pf.Subject(
        name,
        image=pf.ScalarImage(rng.integers(-500, 900, (2, *shape)).astype(np.int16), AFFINE),
        label=pf.LabelMap(rng.integers(0, 3, shape).astype(np.uint8), AFFINE),
        **metadata,
    )


@pytest.fixture(params=["contiguous", "compressed"])
def cache(request, tmp_path):
    subjects = [subject(f"s{n}", seed=n, age=40 + n, scans=[1, {"a": None}]) for n in range(3)]
    return pf.build_cache(subjects, tmp_path / "cache", layout=request.param, progress=False)


def test_entry_says_what_it_is(cache):
    entry = cache["s1"]
    assert (entry.name, entry.shape, entry.spacing) == ("s1", (20, 30, 25), (0.5, 2.0, 3.0))
    np.testing.assert_array_equal(entry.affine, AFFINE)
    assert entry.metadata == {"age": 41, "scans": [1, {"a": None}]}
    record, voxels = entry.images["image"], subject(seed=1)["image"].data
    assert list(entry.images) == ["image", "label"]
    assert (record.kind, record.channels, record.shape, record.dtype, record.stored_dtype) == (
        "scalar",
        2,
        (2, 20, 30, 25),
        np.float32,
        np.int16,
    )
    statistics = [record.statistics.minimum, record.statistics.maximum, record.statistics.mean, record.statistics.std]
    np.testing.assert_allclose(statistics, [voxels.min(), voxels.max(), voxels.mean(dtype=float), voxels.std(dtype=float)], rtol=1e-12)
    counts = np.bincount(subject(seed=1)["label"].data.ravel())
    assert dict(entry.images["label"].classes) == dict(enumerate(counts.tolist()))
    assert entry.images["label"].statistics is None


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_statistics_of_values_that_are_not_counted_one_by_one(tmp_path, dtype):
    voxels = np.random.default_rng(0).normal(1e4, 30, (2, 90, 130, 110)).astype(dtype)  # several slabs
    entry = pf.build_cache([pf.Subject("s", image=pf.ScalarImage(voxels))], tmp_path, progress=False)[0]
    found, values = entry.images["image"].statistics, voxels.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(
        [found.minimum, found.maximum, found.mean, found.std], [values.min(), values.max(), values.mean(), values.std()], rtol=1e-10
    )


def test_cache_is_a_sequence_by_number_and_name(cache):
    assert len(cache) == 3
    assert cache.names == ("s0", "s1", "s2")
    assert [entry.name for entry in cache] == ["s0", "s1", "s2"]
    assert cache[-1].name == "s2"
    assert cache[np.int64(1)].name == "s1"
    with pytest.raises(pf.UnknownNameError, match="no subject 'x'"):
        cache["x"]
    with pytest.raises(IndexError):
        cache[3]


def test_read_into_strided_out_touches_nothing_else(cache):
    values = subject(seed=0)["image"].data
    batch = np.full((2, 2, 10, 12, 14), 9, np.float32)
    out = batch[1, :, 2:8, 1:11, 3:11]
    assert cache[0].read("image", L((1, 2, 3), (6, 10, 8)), out=out) is out
    np.testing.assert_array_equal(out, values[:, 1:7, 2:12, 3:11])
    out[...] = 9
    assert (batch == 9).all()


def test_read_labels_into_a_wider_dtype(cache):
    out = cache[0].read("label", L((-1, 0, 0), (5, 5, 5)), out=np.empty((1, 5, 5, 5), np.int64), fill=-7)
    np.testing.assert_array_equal(out[:, 1:], subject(seed=0)["label"].data[:, :4, :5, :5])
    assert (out[:, 0] == -7).all()


def test_the_whole_volume_is_read_where_no_place_is_said(cache):
    entry, source = cache[0], subject(seed=0)
    np.testing.assert_array_equal(entry.read("image"), source["image"].data, strict=True)
    out = np.empty((1, 20, 30, 25), np.int32)
    assert entry.read("label", out=out) is out
    np.testing.assert_array_equal(out, source["label"].data)


def test_read_outside_the_volume_is_all_fill(cache):
    assert (cache[0].read("image", L((100, 0, 0), (2, 2, 2)), fill=1.5) == 1.5).all()


def test_arguments_that_cannot_be_used(cache):
    entry = cache[0]
    with pytest.raises(pf.UnknownNameError, match=r"subject 's0' has no image 'ct': it has 'image', 'label'"):
        entry.read("ct", L((0, 0, 0), (2, 2, 2)))
    with pytest.raises(pf.ArgumentError, match="out is float64"):
        entry.read("image", L((0, 0, 0), (2, 2, 2)), out=np.empty((2, 2, 2, 2)))
    with pytest.raises(pf.ArgumentError, match="of shape"):
        entry.read("image", L((0, 0, 0), (2, 2, 2)), out=np.empty((1, 2, 2, 2), np.float32))
    with pytest.raises(pf.ArgumentError, match="out is int8"):
        entry.read("label", L((0, 0, 0), (2, 2, 2)), out=np.empty((1, 2, 2, 2), np.int8))
    for fill in (-1, 0.5, 256):
        with pytest.raises(pf.ArgumentError, match="fill value"):
            entry.read("label", L((-1, 0, 0), (2, 2, 2)), fill=fill)
    for stop in ((21, 2, 2), (0, 2, 2)):
        with pytest.raises(pf.ArgumentError, match="does not lie in"):
            entry.region("image", (0, 0, 0), stop)


def test_region_gives_stored_voxels_read_only(cache):
    region = cache[0].region("image", (1, 2, 3), (4, 30, 20))
    assert region.dtype == np.int16
    np.testing.assert_array_equal(region, subject(seed=0)["image"].data[:, 1:4, 2:30, 3:20])
    with pytest.raises(ValueError, match="read-only"):
        region[0] = 0
    if cache.layout == "contiguous":
        assert np.shares_memory(region, cache[0].region("image", (0, 0, 0), (20, 30, 25)))


def test_pickles_without_open_files(cache):
    assert set(cache[0].images) == {"image", "label"}  # asked for before, as a grid does that goes to a worker process
    cache[0].read("image", L((0, 0, 0), (2, 2, 2)))
    for other in (pickle.loads(pickle.dumps(cache))[0], pickle.loads(pickle.dumps(cache[0])), copy.deepcopy(cache[0])):
        np.testing.assert_array_equal(other.read("label", L((0, 0, 0), (9, 9, 9))), cache[0].read("label", L((0, 0, 0), (9, 9, 9))))
    assert len(pickle.dumps(cache[0])) < 4000


def test_threads_read_the_same_entry_at_once(cache):
    values, wrong = subject(seed=2)["image"].data, []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            i, j, k = (int(rng.integers(0, n - 7)) for n in (20, 30, 25))
            if not np.array_equal(cache[2].read("image", L((i, j, k), (8, 8, 8))), values[:, i : i + 8, j : j + 8, k : k + 8]):
                wrong.append((i, j, k))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _child(entry, connection):
    before = len(handles)
    entry.read("image", L((0, 0, 0), (4, 4, 4)))
    connection.send((before, len(handles), os.getpid()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_open_files_do_not_cross_a_fork(cache):
    cache[0].read("image", L((0, 0, 0), (4, 4, 4)))
    assert len(handles) > 0
    context = get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(cache[0], theirs))
    with handles._lock:  # another thread's hold at the time of the fork must not stop the child
        child.start()
    assert ours.poll(20)
    before, after, pid = ours.recv()
    child.join(10)
    assert (before, after) == (0, 1)
    assert pid != os.getpid()


def test_an_entry_replaced_while_it_is_opened_is_read_as_it_was(cache, tmp_path, monkeypatch):
    shutil.copy(cache[1].path, tmp_path / "new.h5")
    read_open_file = layout_module._read_open_file

    def replaced_meanwhile(*arguments):
        found = read_open_file(*arguments)
        os.replace(tmp_path / "new.h5", cache[0].path)
        return found

    monkeypatch.setattr(layout_module, "_read_open_file", replaced_meanwhile)
    np.testing.assert_array_equal(cache[0].read("image", L((0, 0, 0), (20, 30, 25))), subject(seed=0)["image"].data)


def test_a_bounded_number_of_files_is_open(cache, monkeypatch):
    monkeypatch.setattr(handles_module, "LIMIT", 2)
    for _ in range(2):
        for entry in cache:
            assert entry.read("label", L((0, 0, 0), (2, 2, 2))).shape == (1, 2, 2, 2)
            assert len(handles) <= 2
    view = cache[0].region("label", (0, 0, 0), (20, 30, 25))
    for entry in cache:
        entry.close()
    assert not any(cache.folder in path.parents for path, *_ in handles._open)
    np.testing.assert_array_equal(view, subject(seed=0)["label"].data)  # a view outlives its file


def test_blocks_are_checked_once_also_when_files_take_turns(cache, monkeypatch):
    monkeypatch.setattr(handles_module, "LIMIT", 1)
    checked = []
    monkeypatch.setattr(storage_module, "zlib", SimpleNamespace(crc32=lambda data: checked.append(len(data)) or zlib.crc32(data)))
    whole = L((0, 0, 0), (20, 30, 25))
    once = 0
    for again in (False, True, True):
        for entry in cache:
            entry.read("image", whole)
            entry.label_index("label").voxel(1, 0)
        assert checked if not again else len(checked) == once
        once = len(checked)
    pf.open_cache(cache.folder)[0].read("image", whole)
    assert len(checked) > once, "a cache that is opened again may have been built anew"


def test_opening_ten_thousand_entries_reads_the_manifest_alone(tmp_path):
    small = pf.build_cache([subject()], tmp_path / "small", progress=False)
    record = small._manifest.entries[0]
    records = [{**record, "name": f"s{number}", "file": f"s{number}.h5"} for number in range(10_000)]
    (tmp_path / "large").mkdir()
    write_manifest(tmp_path / "large", Manifest("contiguous", "as asked", "f", "Pipeline([])", records))
    start = time.perf_counter()
    cache = pf.open_cache(tmp_path / "large")
    assert time.perf_counter() - start < 5  # 0.2 s on one core
    assert len(cache) == 10_000
    assert cache["s9999"].shape == (20, 30, 25)  # no entry file is there
    assert "and 9980 more" in repr(cache)
    assert "Cache of 10000 subjects" in repr(cache)


def test_cache_prints_itself_as_a_table(cache):
    text = repr(cache)
    assert str(cache.folder) in text
    assert f"layout {cache.layout}: as asked" in text
    row = next(line for line in text.splitlines() if line.startswith("s0"))
    assert row.split()[:7] == ["s0", "image", "(2,", "20,", "30,", "25)", "int16"]
    counts = np.bincount(subject(seed=0)["label"].data.ravel())
    assert f"voxels of 0: {counts[0]}, 1: {counts[1]}, 2: {counts[2]}" in text


def test_manifest_is_plain_json(cache):
    content = json.loads((cache.folder / "manifest.json").read_text())
    assert content["format"] == 1
    assert content["entries"][0]["name"] == "s0"
    assert content["entries"][0]["images"]["image"]["digest"] == subject(seed=0)["image"].digest()


def test_no_cache_there(tmp_path):
    with pytest.raises(pf.CacheError, match=r"manifest\.json is missing.*build_cache"):
        pf.open_cache(tmp_path / "none")
