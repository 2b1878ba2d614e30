"""What spatial steps did is recorded, and leads back to the source's grid."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage as ndi

import patchflow as pf
from patchflow.errors import TransformError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.inference.native import SlabResampler
from patchflow.preprocess import CropOrPad, CropToForeground, Resample, SpatialStep, Step, ToCanonical, ZNormalize
from patchflow.seeding import generator

AFFINE = np.array([[-1.9, 0.2, 0.1, 40.0], [0.3, 0.1, 2.9, -33.0], [0.1, 1.4, 0.2, -20.0], [0, 0, 0, 1]])
SHAPE = (22, 26, 20)
STEPS = [ToCanonical(), Resample(spacing=1.3, anti_alias=False), CropToForeground("label", margin=4), CropOrPad(40), ZNormalize()]


def subject(name: str = "s1") -> pf.Subject:
    field = ndi.gaussian_filter(generator(0).normal(size=SHAPE), 3).astype(np.float32) * 100
    i, j, k = np.indices(SHAPE)
    label = (((i - 11) / 7) ** 2 + ((j - 12) / 8) ** 2 + ((k - 9) / 6) ** 2 < 1).astype(np.uint8)
    return pf.Subject(name, image=pf.ScalarImage(field, affine=AFFINE), label=pf.LabelMap(label, affine=AFFINE), age=3)


def brought_back(volume: np.ndarray, source: VoxelGrid, target: VoxelGrid) -> np.ndarray:
    back = SlabResampler(source, target)
    out = np.empty((len(volume), *target.shape), volume.dtype)
    where = [slice(None)] * 4
    for first, piece in back.push(0, volume):
        where[back.axis + 1] = slice(first, first + piece.shape[back.axis + 1])
        out[tuple(where)] = piece
    return out


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_an_entry_knows_its_native_grid(layout: str, tmp_path: Path) -> None:
    cache = pf.build_cache([subject()], tmp_path / "c", preprocess=pf.Pipeline(STEPS), layout=layout, progress=False)
    for entry in (cache[0], pf.open_cache(tmp_path / "c")[0], pickle.loads(pickle.dumps(cache[0]))):
        assert entry.shape == (40, 40, 40)
        assert entry.native.shape == SHAPE
        np.testing.assert_array_equal(entry.native.affine, AFFINE)
        assert [change.step for change in entry.changes] == ["ToCanonical", "Resample", "CropToForeground", "CropOrPad"]
        assert entry.changes[1].before.shape == (22, 20, 26)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert manifest["entries"][0]["grids"][0] == {"step": "ToCanonical", "shape": list(SHAPE), "affine": AFFINE.tolist()}


def test_without_spatial_steps_it_is_its_own(tmp_path: Path) -> None:
    entry = pf.build_cache([subject()], tmp_path / "c", preprocess=pf.Pipeline([ZNormalize()]), progress=False)[0]
    assert entry.changes == ()
    assert entry.native.agrees(VoxelGrid(SHAPE, AFFINE))
    del entry._record["grids"]  # as entries were before there were spatial steps
    assert entry.native.agrees(VoxelGrid(SHAPE, AFFINE))


def test_subjects_in_memory_remember_it(tmp_path: Path) -> None:
    once = pf.Pipeline(STEPS[:1])(subject())
    twice = pf.Pipeline(STEPS[1:])(once)
    assert once.native.agrees(VoxelGrid(SHAPE, AFFINE))
    assert [change.step for change in twice.changes] == ["ToCanonical", "Resample", "CropToForeground", "CropOrPad"]
    assert twice.native.agrees(VoxelGrid(SHAPE, AFFINE))
    assert twice.metadata == {"age": 3}
    assert pf.Pipeline().process(subject()).native.agrees(VoxelGrid(SHAPE, AFFINE))
    processed = pf.Pipeline(STEPS).process(subject())
    assert processed.native.agrees(twice.native)
    np.testing.assert_array_equal(processed.volumes["label"].array, twice["label"].data)
    entry = pf.build_cache([twice], tmp_path / "c", progress=False)[0]
    assert entry.native.agrees(VoxelGrid(SHAPE, AFFINE))


def test_whole_voxels_come_back_exactly() -> None:
    whole = subject()
    done = pf.Pipeline([ToCanonical(), CropToForeground("label", margin=2), CropOrPad(30)])(whole)
    back = brought_back(done["label"].data, VoxelGrid(done.shape, done.affine), done.native)
    np.testing.assert_array_equal(back, whole["label"].data)


def test_interpolated_volumes_come_back() -> None:
    """A smooth field to 3 % of its range after two interpolations, and labels to a Dice of 0.97."""
    whole = subject()
    done = pf.Pipeline(STEPS[:-1])(whole)
    grid = VoxelGrid(done.shape, done.affine)
    labels = brought_back(done["label"].data, grid, done.native)[0] > 0
    truth = whole["label"].data[0] > 0
    assert 2 * (labels & truth).sum() / (labels.sum() + truth.sum()) > 0.97
    values = brought_back(done["image"].data, grid, done.native)[0]
    np.testing.assert_allclose(values[truth], whole["image"].data[0][truth], atol=0.03 * np.ptp(whole["image"].data))


def test_law_2_holds_with_spatial_steps(tmp_path: Path) -> None:
    source = pf.Pipeline(STEPS)(subject())
    for layout in ("contiguous", "compressed"):
        entry = pf.build_cache([subject()], tmp_path / layout, preprocess=pf.Pipeline(STEPS), layout=layout, progress=False)[0]
        for name in ("image", "label"):
            whole = entry.read(name, pf.PatchLocation((0, 0, 0), (40, 40, 40)))
            assert whole.tobytes() == source[name].data.tobytes()
            part = entry.read(name, pf.PatchLocation((3, 5, 7), (20, 21, 22)))
            np.testing.assert_array_equal(part, source[name].data[:, 3:23, 5:26, 7:29])


def test_an_entry_of_another_past_is_built_anew(tmp_path: Path) -> None:
    done = pf.Pipeline(STEPS)(subject())
    plain = pf.Subject(done.name, **done.images, **done.metadata)
    assert pf.build_cache([plain], tmp_path / "c", progress=False)[0].native.shape == (40, 40, 40)
    assert pf.build_cache([done], tmp_path / "c", progress=False)[0].native.shape == SHAPE
    assert pf.build_cache([plain], tmp_path / "c", progress=False)[0].native.shape == (40, 40, 40)


@dataclass(frozen=True)
class Shift(Step):
    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        return {key: replace(volume, affine=volume.affine + np.eye(4)) for key, volume in volumes.items()}


@dataclass(frozen=True)
class Halve(SpatialStep):
    both: bool = True

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        half = np.diag([2.0, 1, 1, 1])
        return {
            key: replace(volume, array=volume.array[:, ::2].copy(), affine=volume.affine @ half) if self.both or key == "image" else volume
            for key, volume in volumes.items()
        }


def test_spatial_steps_of_the_users_own() -> None:
    done = pf.Pipeline([Halve()])(subject())
    assert done.shape == (11, 26, 20)
    assert [change.step for change in done.changes] == ["Halve"]
    with pytest.raises(TransformError, match="different shapes"):
        pf.Pipeline([Halve(both=False)]).run(subject())
    with pytest.raises(TransformError, match=r"Shift changed the spatial shape or affine.*SpatialStep"):
        pf.Pipeline([Shift()]).run(subject())
