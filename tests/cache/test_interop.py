"""Entry files are plain HDF5 files to others."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import patchflow as pf
from patchflow.cache.layout import read_entry_file

READ = """
import sys, h5py, hdf5plugin, numpy as np
with h5py.File(sys.argv[1]) as file:
    for name in ("image", "label"):
        np.save(f"{sys.argv[2]}/{name}.npy", file[f"images/{name}/voxels"][...])
"""


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_h5py_reads_the_same_voxels(tmp_path, layout):
    rng = np.random.default_rng(0)
    shape = (2, 50, 97, 61)  # several chunks, and padded ones
    image = rng.normal(size=shape).astype(np.float32)
    image[:, :48, :48, :48] = 1.5  # a chunk of one value
    label = rng.integers(-1, 3, shape[1:]).astype(np.int16)
    subject = pf.Subject("s", image=pf.ScalarImage(image), label=pf.LabelMap(label))
    entry = pf.build_cache([subject], tmp_path / "c", layout=layout, progress=False)[0]
    subprocess.run([sys.executable, "-c", READ, str(entry.path), str(tmp_path)], check=True, timeout=60)
    assert np.load(tmp_path / "image.npy").tobytes() == image.tobytes()
    assert np.load(tmp_path / "label.npy").tobytes() == label.tobytes()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_is_open_elsewhere_in_the_process_is_read_all_the_same(tmp_path, mode):
    subject = pf.Subject("s", image=pf.ScalarImage(np.arange(60, dtype=np.int16).reshape(3, 4, 5)))
    entry = pf.build_cache([subject], tmp_path, progress=False)[0]
    with h5py.File(entry.path, mode) as file:
        assert entry.read("image", pf.PatchLocation((2, 3, 4), (1, 1, 1))).item() == 59
        assert file["images/image/voxels"][0, 2, 3, 4] == 59


def test_contiguous_voxels_begin_on_a_page(tmp_path):
    subject = pf.Subject("s", a=pf.ScalarImage(np.zeros((9, 9, 9), np.int16)), b=pf.LabelMap(np.zeros((9, 9, 9), np.uint8)))
    entry = pf.build_cache([subject], tmp_path, layout="contiguous", progress=False)[0]
    extents = read_entry_file(entry.path).extents
    assert [extents[f"{name}/voxels"].offset % 4096 for name in "ab"] == [0, 0]
