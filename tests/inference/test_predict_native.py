"""Preprocessed, predicted, and back on the voxels of the source: `grid="native"`, held against what is known in world coordinates."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.inference.sources import MemorySource, as_source
from patchflow.preprocess import CropToForeground, Pad, Resample, ToCanonical, ZNormalize

SHAPE = (27, 22, 30)
TURN = Rotation.from_euler("xyz", (9, -14, 6), degrees=True).as_matrix()
AXES = {  # columns: where I, J and K lead
    "oblique": TURN @ np.array([[0, -1.4, 0], [0, 0, 1.1], [1.7, 0, 0]]),
    "left-handed": np.array([[0, 0, -1.1], [1.7, 0, 0], [0, -1.4, 0]]) @ np.diag([1, 1, -1]),
}
CENTRE = np.array([31.0, -12.0, 7.0])
RADIUS = 9.0
PIPELINE = pf.Pipeline(
    [ToCanonical(), Resample(spacing=1.25, anti_alias=False), CropToForeground("label", margin=4), Pad((1, 2, 3), (4, 0, 2))]
)
OPTIONS = {"patch_size": (12, 9, 14), "progress": False}


def affine_of(name: str) -> np.ndarray:
    """The middle of the volume lies at the centre of the ball, nearly."""
    affine = np.eye(4)
    affine[:3, :3] = AXES[name]
    affine[:3, 3] = CENTRE - AXES[name] @ ((np.array(SHAPE) - 1) / 2 + [0.3, -0.2, 0.4])
    return affine


def world(affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))


def depth(places: np.ndarray) -> np.ndarray:
    """Millimetres to the surface of the ball, positive inside."""
    return RADIUS - np.linalg.norm(places - CENTRE, axis=-1)


def ramp(places: np.ndarray) -> np.ndarray:
    return ((places - CENTRE) @ [3.0, -2.0, 5.0] + 200).astype(np.float32)


def files(folder: Path, name: str) -> pf.Subject:
    """A subject of two files: a ramp, which linear interpolation keeps, in a channel of its own the depth; and the ball as labels."""
    affine = affine_of(name)
    places = world(affine)
    nib.save(nib.Nifti1Image(ramp(places), affine), folder / f"{name}_ramp.nii.gz")
    nib.save(nib.Nifti1Image(depth(places).astype(np.float32), affine), folder / f"{name}_depth.nii.gz")
    nib.save(nib.Nifti1Image((depth(places) > 0).astype(np.uint8), affine), folder / f"{name}_label.nii.gz")
    images = {key: pf.ScalarImage(folder / f"{name}_{key}.nii.gz") for key in ("ramp", "depth")}
    return pf.Subject(name, **images, label=pf.LabelMap(folder / f"{name}_label.nii.gz"))


def ball(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([-x, x], dim=1)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = nib.load(path)
    return np.asarray(found.dataobj), found.affine


def check_ball(path: Path, name: str) -> None:
    """Values, affine and shape are those of the source's own voxels."""
    found, affine = read(path)
    source = nib.load(path.parent / f"{name}_label.nii.gz")
    assert found.shape == source.shape == SHAPE
    np.testing.assert_allclose(affine, source.affine, atol=1e-5)
    truth = depth(world(affine_of(name)))
    clear = np.abs(truth) > 0.15  # of the ball's curvature between voxels, twice, at most 2 x 1.7^2 / (8 x 9) mm is lost
    np.testing.assert_array_equal(found[clear], (truth > 0)[clear])
    assert found.sum() == pytest.approx(np.sum(truth > 0), rel=0.02)


@pytest.mark.parametrize("name", AXES)
def test_a_ball_comes_back_from_an_entry(name: str, tmp_path: Path) -> None:
    entry = pf.build_cache([files(tmp_path, name)], tmp_path / "cache", preprocess=PIPELINE, progress=False)[0]
    assert entry.shape != SHAPE
    path = pf.predict(ball, entry, images=["depth"], fill=-30, grid="native", path=tmp_path / "out.nii.gz", **OPTIONS)
    check_ball(path, name)


@pytest.mark.parametrize("name", AXES)
def test_values_come_back_where_the_crop_had_them(name: str, tmp_path: Path) -> None:
    """Linear in space, so that two interpolations change nothing: 1e-5 of the range. Elsewhere lies the background, 0."""
    subject = files(tmp_path, name)
    done = pf.Pipeline(PIPELINE.steps[:3])(subject)  # without the margin, of which values are made up
    path = pf.predict(torch.nn.Identity(), done, images=["ramp"], output="logits", grid="native", path=tmp_path / "out.nii", **OPTIONS)
    found, affine = read(path)
    np.testing.assert_allclose(affine, nib.load(tmp_path / f"{name}_ramp.nii.gz").affine, atol=1e-5)
    truth = ramp(world(affine_of(name)))
    places = nib.affines.apply_affine(np.linalg.inv(done.affine), world(affine_of(name)))
    inside = ((places > 0) & (places < np.array(done.shape) - 1)).all(-1)
    assert inside.sum() > 4000
    np.testing.assert_allclose(found[inside], truth[inside], atol=1e-5 * np.ptp(truth))
    beyond = ((places < -0.501) | (places > np.array(done.shape) - 0.499)).any(-1)
    assert beyond.sum() > 4000
    assert (found[beyond] == 0).all()


def test_all_ways_to_predict_write_the_same_file(tmp_path: Path) -> None:
    subjects = [files(tmp_path, name) for name in AXES]
    cache = pf.build_cache(subjects, tmp_path / "cache", preprocess=PIPELINE, progress=False)
    options = {"images": ["depth"], "fill": -30, **OPTIONS}
    expected = {}
    for entry in cache:
        path = pf.predict(ball, entry, grid="native", path=tmp_path / "one.nii.gz", **options)
        expected[entry.name] = path.read_bytes()
        of_subject = pf.predict(ball, PIPELINE(subjects[cache.names.index(entry.name)]), grid="native", path=path, **options)
        assert of_subject.read_bytes() == expected[entry.name]
    sources = {"entries": cache, "subjects": subjects, "processed": [PIPELINE(subject) for subject in subjects]}
    for kind, given in sources.items():
        preprocess = PIPELINE if kind == "subjects" else None
        paths = pf.predict_subjects(ball, given, tmp_path / kind, grids="native", preprocess=preprocess, **options)
        assert {name: path.read_bytes() for name, path in paths.items()} == expected
    for_one = {"oblique": "native"}
    for given in (for_one, for_one.get):
        paths = pf.predict_subjects(ball, cache, tmp_path / f"{type(given).__name__}", grids=given, **options)
        assert paths["oblique"].read_bytes() == expected["oblique"]
        assert nib.load(paths["left-handed"]).shape == cache["left-handed"].shape


def test_without_a_word_predictions_stay_where_the_images_are(tmp_path: Path) -> None:
    entry = pf.build_cache([files(tmp_path, "oblique")], tmp_path / "cache", preprocess=PIPELINE, progress=False)[0]
    found = pf.predict(ball, entry, images=["depth"], fill=-30, **OPTIONS)
    assert found.shape[1:] == entry.shape
    depths = entry.read("depth", pf.PatchLocation((0, 0, 0), entry.shape))
    np.testing.assert_array_equal(found, depths > 0)


def test_what_was_not_changed_is_native(tmp_path: Path) -> None:
    subject = files(tmp_path, "left-handed")
    entry = pf.build_cache([subject], tmp_path / "cache", preprocess=pf.Pipeline([ZNormalize()]), progress=False)[0]
    for source in (subject, entry):
        own, native = (pf.predict(ball, source, images=["depth"], grid=grid, **OPTIONS) for grid in (None, "native"))
        assert torch.equal(own, native)


def test_sources_that_do_not_know_it_are_refused(tmp_path: Path) -> None:
    array = np.zeros((1, *SHAPE), np.float32)
    with pytest.raises(ArgumentError, match='"array" does not know the grid that it came from'):
        pf.predict(ball, array, grid="native", **OPTIONS)
    source = MemorySource("mine", {"image": Volume(array, np.eye(4), "scalar")})
    with pytest.raises(ArgumentError, match='"mine" does not know the grid'):
        pf.predict_subjects(ball, [source], tmp_path / "out", grids="native", **OPTIONS)
    with pytest.raises(ArgumentError, match="grids must be"):
        pf.predict_subjects(ball, [source], tmp_path / "out", grids="nativ", **OPTIONS)
    with pytest.raises(ArgumentError, match="grid must be an image"):
        pf.predict_subjects(ball, [source], tmp_path / "out", grids={"other": 3}, **OPTIONS)
    grid = VoxelGrid((3, 4, 5), np.eye(4))
    known = MemorySource("mine", {"image": Volume(array, np.eye(4), "scalar")}, grid)
    assert pf.predict(ball, known, grid="native", **OPTIONS).shape == (1, 3, 4, 5)


def test_subjects_as_sources_know_it(tmp_path: Path) -> None:
    subject = files(tmp_path, "oblique")
    done = pf.Pipeline([CropToForeground("label")])(subject)
    assert as_source(subject).native.agrees(VoxelGrid(SHAPE, affine_of("oblique")))
    assert as_source(done).native.agrees(VoxelGrid(SHAPE, affine_of("oblique")))
    assert as_source(done, ["depth"]).shape == done.shape


def test_predictions_of_another_grid_are_not_taken_for_these(tmp_path: Path) -> None:
    subject = files(tmp_path, "oblique")
    options = {"preprocess": PIPELINE, "images": ["depth"], **OPTIONS}
    pf.predict_subjects(ball, [subject], tmp_path / "out", grids="native", **options)
    with pytest.raises(InferenceError, match=r"predicted with other settings \(grid\)"):
        pf.predict_subjects(ball, [subject], tmp_path / "out", **options)
    made_with = json.loads((tmp_path / "out" / "oblique.json").read_text())["made_with"]
    assert made_with["grid"][0] == list(SHAPE)
