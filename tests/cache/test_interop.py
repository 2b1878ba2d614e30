"""Entry files are plain HDF5 files to others."""

import subprocess
import sys

import numpy as np
import pytest

import patchflow as pf

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


def test_contiguous_voxels_begin_on_a_page(tmp_path):
    from patchflow.cache.layout import read_entry_file

    subject = pf.Subject("s", a=pf.ScalarImage(np.zeros((9, 9, 9), np.int16)), b=pf.LabelMap(np.zeros((9, 9, 9), np.uint8)))
    entry = pf.build_cache([subject], tmp_path, layout="contiguous", progress=False)[0]
    extents = read_entry_file(entry.path).extents
    assert [extents[f"{name}/voxels"].offset % 4096 for name in "ab"] == [0, 0]
