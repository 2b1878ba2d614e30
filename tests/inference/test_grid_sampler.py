import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import patchflow as pf
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.location import PatchLocation

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(-1000, 1000, (2, 9, 7, 5)).astype(np.int16)
LABEL = RNG.integers(0, 4, (1, 9, 7, 5)).astype(np.int64)


def make_subject() -> pf.Subject:
    return pf.Subject("s1", image=pf.ScalarImage(IMAGE, np.diag([2.0, 1, 1, 1])), label=pf.LabelMap(LABEL, np.diag([2.0, 1, 1, 1])))


def test_samples_are_the_windows_of_every_image_and_where_they_lie() -> None:
    grid = pf.GridSampler(make_subject(), (4, 7, 3), (1, 0, 1))
    assert (grid.name, grid.patch_size, grid.patch_overlap) == ("s1", (4, 7, 3), (1, 0, 1))
    assert len(grid) == 3 * 1 * 2
    for index, sample in enumerate(grid):
        assert list(sample) == ["image", "label", "location"]
        assert sample["location"].dtype == torch.int64
        assert sample["location"].tolist() == grid.locations[index].tolist()
        i, j, k, i1, j1, k1 = sample["location"].tolist()
        np.testing.assert_array_equal(sample["image"].numpy(), IMAGE[:, i:i1, j:j1, k:k1].astype(np.float32), strict=True)
        np.testing.assert_array_equal(sample["label"].numpy(), LABEL[:, i:i1, j:j1, k:k1], strict=True)


def test_a_patch_larger_than_the_volume_is_centred_and_filled() -> None:
    grid = pf.GridSampler(make_subject(), (9, 10, 8), fill=-7.5)
    assert grid.locations.tolist() == [[0, -1, -1, 9, 9, 7]]
    image, label = grid[0]["image"].numpy(), grid[0]["label"].numpy()
    np.testing.assert_array_equal(image, np.pad(IMAGE.astype(np.float32), [(0, 0), (0, 0), (1, 2), (1, 2)], constant_values=-7.5))
    np.testing.assert_array_equal(label, np.pad(LABEL, [(0, 0), (0, 0), (1, 2), (1, 2)]))


def test_fill_may_be_given_by_name() -> None:
    sample = pf.GridSampler(make_subject(), (9, 7, 6), fill={"label": 9})[0]
    assert sample["label"][..., 5].eq(9).all()
    assert sample["image"][..., 5].eq(0).all()


def test_keys_choose_the_images_and_others_are_not_loaded(tmp_path) -> None:
    (tmp_path / "damaged.nii").write_bytes(b"")
    subject = pf.Subject("s1", image=pf.ScalarImage(IMAGE))
    subject._images["other"] = pf.ScalarImage(tmp_path / "damaged.nii")
    subject.check = lambda: None
    assert list(pf.GridSampler(subject, 4, keys=["image"])[0]) == ["image", "location"]


def test_an_array_or_tensor_is_an_image() -> None:
    for source in (IMAGE, torch.from_numpy(IMAGE), torch.from_numpy(IMAGE).to(torch.float64)):
        sample = pf.GridSampler(source, (9, 7, 5))[0]
        np.testing.assert_array_equal(sample["image"].numpy(), IMAGE.astype(np.float32), strict=True)
    half = torch.from_numpy(IMAGE).to(torch.bfloat16)
    assert torch.equal(pf.GridSampler(half, (9, 7, 5))[0]["image"], half.float())
    strided = np.asfortranarray(IMAGE)[:, ::-1]
    np.testing.assert_array_equal(pf.GridSampler(strided, (9, 7, 5))[0]["image"].numpy(), strided.astype(np.float32))


def test_an_entry_of_a_cache_gives_what_its_subject_gives(tmp_path) -> None:
    subject = make_subject()
    entry = pf.build_cache([subject], tmp_path / "cache", progress=False)[0]
    cached, loaded = pf.GridSampler(entry, (4, 8, 3), 1, fill=3), pf.GridSampler(subject, (4, 8, 3), 1, fill=3)
    assert len(cached) == len(loaded)
    for one, other in zip(cached, loaded, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("image", "label", "location"))
    np.testing.assert_array_equal(cached.source.affine, np.diag([2.0, 1, 1, 1]))


def test_a_data_loader_collates_windows_in_order() -> None:
    grid = pf.GridSampler(make_subject(), (4, 4, 3), (1, 1, 1))
    batches = list(DataLoader(grid, batch_size=5))
    assert torch.equal(torch.cat([batch["location"] for batch in batches]), torch.from_numpy(grid.locations))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), torch.stack([sample["image"] for sample in grid]))


def test_a_grid_can_be_pickled_for_process_workers() -> None:
    grid = pf.GridSampler(make_subject(), (4, 4, 3), fill=2)
    copy = pickle.loads(pickle.dumps(grid))
    assert torch.equal(copy[3]["image"], grid[3]["image"])
    assert copy.locations.tolist() == grid.locations.tolist()


def test_indices_are_those_of_a_sequence() -> None:
    grid = pf.GridSampler(IMAGE, 4)
    assert torch.equal(grid[-1]["location"], grid[len(grid) - 1]["location"])
    for index in (len(grid), -len(grid) - 1):
        with pytest.raises(IndexError, match=f"window {index} of {len(grid)}"):
            grid[index]


def test_a_source_of_one_s_own_needs_five_members() -> None:
    class Ramp:
        def __init__(self):
            self.name, self.shape, self.affine = "ramp", (8, 1, 1), np.eye(4)
            self.images = {"image": pf.ScalarImage(np.zeros((1, 8, 1, 1)))}

        def read(self, name, location: PatchLocation, *, out=None, fill=0):
            return np.arange(location.start[0], location.stop[0], dtype=np.float32).reshape(1, -1, 1, 1)

    assert [sample["image"].flatten().tolist() for sample in pf.GridSampler(Ramp(), (4, 1, 1))] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patch_size": 4.0}, ArgumentError, "write 4"),
        ({"patch_size": 4, "patch_overlap": 4}, ArgumentError, "smaller than patch_size"),
        ({"patch_size": 4, "patch_overlap": 0.5}, ArgumentError, "patch_overlap is counted in voxels"),
        ({"patch_size": 4, "keys": ["t2"]}, UnknownNameError, "'s1' has no image 't2'.*'image', 'label'"),
        ({"patch_size": 4, "keys": "image"}, ArgumentError, "keys must be a list"),
        ({"patch_size": 4, "fill": {"t2": 0}}, UnknownNameError, 'fill names "t2"'),
    ],
)
def test_bad_arguments(arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        pf.GridSampler(make_subject(), **arguments)


def test_a_cache_is_many_subjects(tmp_path) -> None:
    cache = pf.build_cache([make_subject()], tmp_path / "cache", progress=False)
    for several, name in ((cache, "Cache"), ([make_subject()], "list")):
        with pytest.raises(ArgumentError, match=rf"not from {name} of several subjects: .*write pf\.predict_subjects\(.* for all$"):
            pf.GridSampler(several, 4)


def test_all_of_an_image_is_read_where_no_place_is_said() -> None:
    source = pf.GridSampler(make_subject(), 4).source
    np.testing.assert_array_equal(source.read("image"), IMAGE.astype(np.float32), strict=True)
    out = np.empty(IMAGE.shape, np.float32)
    assert source.read("image", out=out) is out
    np.testing.assert_array_equal(out, IMAGE)


def test_bad_sources() -> None:
    with pytest.raises(ArgumentError, match=r"must be \(C, I, J, K\) and hold voxels, not of shape \(9, 7, 5\)"):
        pf.GridSampler(IMAGE[0], 4)
    with pytest.raises(ArgumentError, match=r"not from str 'image\.nii\.gz': write pf\.Subject\(name, image=pf\.ScalarImage\('image\.nii"):
        pf.GridSampler("image.nii.gz", 4)
    with pytest.raises(ArgumentError, match=r"not from ScalarImage array.*: write pf\.Subject\(name, image="):
        pf.GridSampler(pf.ScalarImage(IMAGE), 4)
    with pytest.raises(ArgumentError, match=r"not from dict \{'image': 3\}$"):
        pf.GridSampler({"image": 3}, 4)
    with pytest.raises(UnknownNameError, match='subject "array" has no image "t2", it has "image"'):
        pf.GridSampler(IMAGE, 4, keys=["t2"])
