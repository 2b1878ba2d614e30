import json
import os
import shutil
import zlib

import h5py
import numpy as np
import pytest

import patchflow as pf
from patchflow.cache.layout import read_entry_file
from patchflow.cache.manifest import write_manifest

L = pf.PatchLocation
SHAPE = (70, 60, 50)


@pytest.fixture(params=["contiguous", "compressed"])
def cache(request, tmp_path):
    rng = np.random.default_rng(0)
    subjects = [
        pf.Subject(
            name,
            image=pf.ScalarImage(rng.integers(0, 900, SHAPE).astype(np.int16)),
            label=pf.LabelMap(rng.integers(0, 3, SHAPE).astype(np.uint8)),
        )
        for name in ("first", "second")
    ]
    return pf.build_cache(subjects, tmp_path / "cache", layout=request.param, progress=False)


def spoil(path, offset):
    """Change one byte, and leave the time stamps as they were."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def voxel_byte(entry, image, voxel=(69, 59, 49)):
    """Where in the file (something of) that voxel lies."""
    file = read_entry_file(entry.path)
    if image in file.chunks:
        table = file.extents[f"{image}/frames"]
        frames = np.fromfile(entry.path, np.int64, int(np.prod(table.shape)), offset=table.offset).reshape(table.shape)
        return int(frames[-1].sum()) - 9
    extent = file.extents[f"{image}/voxels"]
    return extent.offset + int(np.ravel_multi_index((0, *voxel), extent.shape)) * extent.dtype.itemsize


@pytest.mark.parametrize("image", ["image", "label"])
def test_damaged_block_is_refused_when_first_touched(cache, image):
    entry = cache["second"]
    spoil(entry.path, voxel_byte(entry, image))
    whole = L((0, 0, 0), SHAPE)
    entry.read(image, L((0, 0, 0), (8, 8, 8)))  # another block
    for _ in range(2):  # not once only
        with pytest.raises(
            pf.CacheDamagedError, match=rf"subject 'second': .*second\.h5 is damaged: image '{image}', voxels .*Delete that file and build"
        ):
            entry.read(image, whole)
    with pytest.raises(pf.CacheDamagedError):
        entry.region(image, (69, 59, 49), SHAPE)
    assert entry.read("label" if image == "image" else "image", whole).shape == (1, *SHAPE)
    assert cache["first"].read(image, whole).shape == (1, *SHAPE)


def test_every_voxel_is_under_a_checksum(tmp_path):
    """The blocks that a read checks hold all that it touches: one damaged voxel anywhere is found by reading that voxel."""
    voxels = np.random.default_rng(0).integers(0, 9999, (3, 40, 70, 30)).astype(np.int16)
    cache = pf.build_cache([pf.Subject("s", image=pf.ScalarImage(voxels))], tmp_path / "c", layout="contiguous", progress=False)
    extent = read_entry_file(cache[0].path).extents["image/voxels"]
    rng = np.random.default_rng(1)
    for _ in range(25):
        c, i, j, k = (int(rng.integers(n)) for n in voxels.shape)
        place = extent.offset + 2 * int(np.ravel_multi_index((c, i, j, k), voxels.shape))
        spoil(cache[0].path, place)
        cache[0].close()
        with pytest.raises(pf.CacheDamagedError):
            cache[0].region("image", (i, j, k), (i + 1, j + 1, k + 1))
        spoil(cache[0].path, place)  # mends it
        cache[0].close()
        assert cache[0].region("image", (i, j, k), (i + 1, j + 1, k + 1))[c, 0, 0, 0] == voxels[c, i, j, k]


def test_checks_can_be_turned_off(cache):
    if cache.layout == "compressed":
        pytest.skip("what is left of a damaged chunk may not decompress at all")
    entry = pf.open_cache(cache.folder, verify_on_read=False)["second"]
    before = entry.read("image", L((0, 0, 0), SHAPE))
    entry.close()
    spoil(entry.path, voxel_byte(entry, "image"))
    assert np.argwhere(entry.read("image", L((0, 0, 0), SHAPE)) != before).tolist() == [[0, 69, 59, 49]]


def test_damaged_index_is_refused(cache):
    entry = cache["first"]
    extent = read_entry_file(entry.path).extents["label/index/starts"]
    spoil(entry.path, extent.offset + 8)
    with pytest.raises(pf.CacheDamagedError, match="image 'label', index/starts"):
        entry.label_index("label").voxel(0, 0)


def test_verify_finds_all_and_stops_at_none(cache):
    assert cache.verify() == []
    spoil(cache["first"].path, voxel_byte(cache["first"], "image"))
    spoil(cache["first"].path, voxel_byte(cache["first"], "label"))
    spoil(cache["first"].path, read_entry_file(cache["first"].path).extents["label/index/ends"].offset)
    cache["second"].path.unlink()
    findings = cache.verify()
    assert [(finding.subject, finding.image) for finding in findings] == [
        ("first", "image"),
        ("first", "label"),
        ("first", "label"),
        ("second", None),
    ]
    assert "69, 59, 49) (" in findings[0].what
    assert "index/ends" in findings[2].what
    assert "missing" in str(findings[3])
    assert str(findings[0]).startswith("subject 'first', image 'image': voxels (")


def test_truncated_file_is_refused_before_it_is_mapped(cache):
    path = cache["first"].path
    size = path.stat().st_size
    os.truncate(path, size // 2)
    with pytest.raises(pf.CacheDamagedError, match=r"first\.h5 is damaged"):
        cache["first"].read("image", L((0, 0, 0), (4, 4, 4)))
    path.write_bytes(b"")
    with pytest.raises(pf.CacheDamagedError, match=r"first\.h5 is damaged"):
        cache["first"].read("image", L((0, 0, 0), (4, 4, 4)))


def test_missing_and_replaced_files(cache):
    first, second = cache["first"], cache["second"]
    shutil.copy(second.path, first.path)
    with pytest.raises(pf.CacheDamagedError, match=r"first\.h5 is not the file that the manifest lists"):
        first.read("image", L((0, 0, 0), (4, 4, 4)))
    first.path.unlink()
    with pytest.raises(pf.CacheError, match=r"first\.h5 is missing: build the cache again"):
        first.label_index("label")


def forge(entry, name, make):
    """Put something else where an image's voxels are."""
    with h5py.File(entry.path, "r+") as file:
        group = file["images/image"]
        del group["voxels"]
        make(group)


def virtual(group):
    layout = h5py.VirtualLayout(shape=(1, *SHAPE), dtype=np.int16)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(1, *SHAPE))
    group.create_virtual_dataset("voxels", layout)


FORGERIES = {
    "external link": (lambda group: group.__setitem__("voxels", h5py.ExternalLink("other.h5", "/x")), "is a link"),
    "soft link": (lambda group: group.__setitem__("voxels", h5py.SoftLink("/images/label/voxels")), "is a link"),
    "external storage": (
        lambda group: group.create_dataset("voxels", (1, *SHAPE), np.int16, external=[("/etc/hostname", 0, 420_000)]),
        "in other files",
    ),
    "virtual": (virtual, "in other files"),
    "unknown filter": (lambda group: group.create_dataset("voxels", (1, *SHAPE), np.int16, compression="gzip"), r"filters \[1\]"),
    "objects": (lambda group: group.create_dataset("voxels", (2,), h5py.string_dtype()), "of dtype object"),
    "group": (lambda group: group.create_group("voxels"), "not a dataset"),
    "another shape": (lambda group: group.create_dataset("voxels", data=np.zeros((1, 2, 2, 2), np.int16)), "not of shape"),
    "another dtype": (lambda group: group.create_dataset("voxels", data=np.zeros((1, *SHAPE), np.int32)), "dtype int16"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_readers_refuse_what_entry_files_never_hold(tmp_path, forgery):
    subject = pf.Subject("s", image=pf.ScalarImage(np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.int16)))
    entry = pf.build_cache([subject], tmp_path / "c", layout="contiguous", progress=False)[0]
    make, message = FORGERIES[forgery]
    forge(entry, "image", make)
    with pytest.raises(pf.CacheDamagedError, match=message):
        entry.read("image", L((0, 0, 0), (4, 4, 4)))


def resealed(data):
    """A manifest of other content whose checksum fits."""
    body = data[len('{"checksum": "01234567",') :]
    return b'{"checksum": "%08x",' % zlib.crc32(body) + body


def test_damaged_manifest(cache):
    path = cache.folder / "manifest.json"
    data = path.read_bytes()
    for spoilt in (b"", b"[1]", data[:-40], data.replace(b'"first"', b'"fjrst"', 1), data.replace(b'"checksum": "', b'"checksum": "0', 1)):
        path.write_bytes(spoilt)
        with pytest.raises(pf.CacheDamagedError, match=r"manifest\.json is not what was written.*[Bb]uild the cache again"):
            pf.open_cache(cache.folder)


def test_other_format_versions(cache):
    path = cache.folder / "manifest.json"
    data = path.read_bytes()
    path.write_bytes(resealed(data.replace(b'"format": 1', b'"format": 2')))
    with pytest.raises(pf.CacheFormatError, match=r"format 2, but this version reads format 1: build the cache again"):
        pf.open_cache(cache.folder)
    with h5py.File(cache["first"].path, "r+") as file:
        file.attrs["format"] = 3
    with pytest.raises(pf.CacheFormatError, match=r"first\.h5 is of cache format 3"):
        cache["first"].read("image", L((0, 0, 0), (4, 4, 4)))


def test_manifest_cannot_lead_out_of_the_folder(cache):
    manifest = cache._manifest
    manifest.entries[0].update(name="../../x", file="../../x.h5")
    write_manifest(cache.folder, manifest)
    assert json.loads((cache.folder / "manifest.json").read_bytes())["entries"][0]["file"] == "../../x.h5"
    with pytest.raises(pf.CacheDamagedError, match="lists the file"):
        pf.open_cache(cache.folder)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_damaged_entry_is_mended_by_deleting_and_building(cache, kind):
    pixels = {entry.name: entry.read(kind, L((0, 0, 0), SHAPE)) for entry in cache}
    kept = cache["first"].path.stat().st_ino
    subjects = [
        pf.Subject(
            entry.name,
            **{
                name: (pf.ScalarImage if name == "image" else pf.LabelMap)(entry.region(name, (0, 0, 0), SHAPE).copy())
                for name in entry.images
            },
        )
        for entry in cache
    ]
    spoil(cache["second"].path, voxel_byte(cache["second"], kind))
    cache["second"].path.unlink()
    again = pf.build_cache(subjects, cache.folder, layout=cache.layout, progress=False)
    np.testing.assert_array_equal(again["second"].read(kind, L((0, 0, 0), SHAPE)), pixels["second"])
    assert again.verify() == []
    assert again["first"].path.stat().st_ino == kept
