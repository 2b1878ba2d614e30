"""Crops and margins: which voxels they take, what they add, and that affines stay true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, UnknownNameError
from patchflow.images.volume import Volume
from patchflow.preprocess import CropOrPad, CropToForeground, EnsureMultiple, Pad, Step, Window
from patchflow.seeding import generator

AFFINE = np.array([[-1.9, 0.2, 0.1, 40.0], [0.3, 0.1, 2.9, -33.0], [0.1, 1.4, 0.2, -20.0], [0, 0, 0, 1]])


def subject(image: np.ndarray, label: np.ndarray | None = None) -> pf.Subject:
    label = np.ones(image.shape[-3:], np.uint8) if label is None else label
    return pf.Subject("s1", image=pf.ScalarImage(image, affine=AFFINE), label=pf.LabelMap(label, affine=AFFINE))


def run(step: Step, image: np.ndarray, label: np.ndarray | None = None) -> dict[str, Volume]:
    return pf.Pipeline([step]).run(subject(image, label))


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.int16).reshape(shape)


class TestCropToForeground:
    def test_the_box(self) -> None:
        image = np.full((2, 9, 10, 11), -5, np.int16)
        image[0, 3, 4, 5] = image[1, 6, 2, 8] = 7
        found = run(CropToForeground("image"), image)
        np.testing.assert_array_equal(found["image"].array, image[:, 3:7, 2:5, 5:9])
        assert found["label"].spatial_shape == (4, 3, 4)
        for volume in found.values():
            np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], AFFINE @ [3, 2, 5, 1], atol=1e-12)

    def test_margin_and_threshold(self) -> None:
        image = np.zeros((9, 10, 11), np.float32)
        image[1:8, 4, 5], image[4, 4, 5] = 1, 3
        assert run(CropToForeground("image", threshold=1), image)["image"].spatial_shape == (1, 1, 1)
        assert run(CropToForeground("image", threshold=0.5, margin=(3, 1, 0)), image)["image"].spatial_shape == (9, 3, 1)
        label = np.zeros(image.shape, np.uint8)
        label[2:4] = 3
        np.testing.assert_array_equal(run(CropToForeground("label"), image, label)["image"].array[0], image[2:4])

    def test_values_as_read_count(self) -> None:
        image = numbered((4, 4, 4))
        found = pf.Pipeline([Window(32, 64, (-1, 1)), CropToForeground("image")]).run(subject(image))
        assert found["image"].spatial_shape == (2, 4, 4)
        assert found["image"].array.dtype == np.int16

    def test_beyond_one_slab(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("patchflow.preprocess.crops._SLAB", 30)
        image = np.zeros((9, 4, 5), np.float32)
        image[2:8, 1:3, 4] = 1
        np.testing.assert_array_equal(run(CropToForeground("image"), image)["image"].array[0], image[2:8, 1:3, 4:])

    def test_no_foreground(self) -> None:
        with pytest.raises(ImageError, match=r"subject 's1', image 'image'.*no voxel is above 3"):
            run(CropToForeground("image", threshold=3), np.zeros((4, 4, 4)))
        with pytest.raises(UnknownNameError, match="has no image 'brain'"):
            run(CropToForeground("brain"), np.zeros((4, 4, 4)))


class TestPad:
    def test_constant(self) -> None:
        image = numbered((2, 3, 4))
        found = run(Pad((1, 0, 2), (0, 1, 0), fill=-9, label_fill=4), image)
        np.testing.assert_array_equal(found["image"].array[0], np.pad(image, ((1, 0), (0, 1), (2, 0)), constant_values=-9))
        np.testing.assert_array_equal(found["label"].array[0], np.pad(np.ones((2, 3, 4)), ((1, 0), (0, 1), (2, 0)), constant_values=4))
        assert found["image"].array.dtype == np.int16
        np.testing.assert_allclose(found["image"].affine @ [1, 0, 2, 1], AFFINE @ [0, 0, 0, 1], atol=1e-12)

    @pytest.mark.parametrize(("outside", "mode"), [("border", "edge"), ("reflect", "reflect")])
    def test_others(self, outside: str, mode: str) -> None:
        image = numbered((2, 3, 4))
        np.testing.assert_array_equal(run(Pad(5, outside=outside), image)["image"].array[0], np.pad(image, 5, mode=mode))

    def test_a_fill_that_no_stored_voxel_reads_as(self) -> None:
        image = numbered((2, 3, 4))
        found = pf.Pipeline([Window(12, 10, (0, 1)), Pad(1, fill=-2)]).run(subject(image))["image"]
        np.testing.assert_array_equal(found.values()[0, 1:-1, 1:-1, 1:-1], np.clip((image - 7) / 10, 0, 1).astype(np.float32))
        assert found.values().min() == -2
        kept = pf.Pipeline([Window(12, 10, (0, 1)), Pad(1, fill=0)]).run(subject(image))["image"]
        assert kept.array.dtype == np.int16
        assert (kept.values()[0, 0] == 0).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"before": -1}, "at least 0"),
            ({"before": 1.5}, "must be an int"),
            ({"before": 1, "outside": "wrap"}, "'constant', 'border' or 'reflect'"),
            ({"before": 1, "fill": float("inf")}, "must be finite"),
            ({"before": 1, "label_fill": 0.5}, "must be an integer"),
        ],
    )
    def test_what_cannot_be(self, arguments: dict, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            Pad(**arguments)


class TestCropOrPad:
    def test_the_middle(self) -> None:
        image = numbered((9, 4, 6))
        found = run(CropOrPad((4, 7, 6)), image)["image"]
        np.testing.assert_array_equal(found.array[0], np.pad(image[2:6], ((0, 0), (1, 2), (0, 0))))
        np.testing.assert_allclose(found.affine @ [0, 1, 0, 1], AFFINE @ [2, 0, 0, 1], atol=1e-12)

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
    def test_voxels_stay_in_place(self, shape: tuple, size: tuple) -> None:
        image = numbered(shape)
        found = run(CropOrPad(size), image)["image"]
        assert found.spatial_shape == size
        voxels = np.argwhere(found.array[0] > 0)
        assert len(voxels) == np.prod(np.minimum(shape, size))
        before = np.linalg.solve(AFFINE, found.affine) @ np.c_[voxels, np.ones(len(voxels))].T
        np.testing.assert_allclose(before, np.rint(before), atol=1e-9)
        np.testing.assert_array_equal(image[tuple(np.rint(before[:3]).astype(int))], found.array[0][tuple(voxels.T)])
        off = (np.array(shape) - 1) / 2 - (np.linalg.solve(AFFINE, found.affine) @ [*(np.array(size) - 1) / 2, 1])[:3]
        assert (np.abs(off) < 0.5 + 1e-9).all()


class TestEnsureMultiple:
    @pytest.mark.parametrize(("arguments", "shape"), [((4,), (12, 4, 8)), (((4, 3, 1), "crop"), (8, 3, 6)), ((8, "crop"), (8, 8, 8))])
    def test_shapes(self, arguments: tuple, shape: tuple) -> None:
        found = run(EnsureMultiple(*arguments), numbered((9, 4, 6)))["image"]
        assert found.spatial_shape == shape
        assert found.array.astype(bool).sum() == np.prod(np.minimum(shape, (9, 4, 6)))

    def test_what_cannot_be(self) -> None:
        with pytest.raises(ArgumentError, match="'pad' or 'crop'"):
            EnsureMultiple(4, "grow")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="at least 1"):
            EnsureMultiple(0)


def test_a_random_chain_is_numpys() -> None:
    image = generator(0).normal(size=(12, 13, 14)).astype(np.float32)
    image[:2] = image[:, :, -3:] = -10
    found = pf.Pipeline([CropToForeground("image", -9), EnsureMultiple(8, outside="reflect"), CropOrPad((20, 8, 8))]).run(subject(image))
    expected = np.pad(image[2:, :, :11], ((3, 3), (1, 2), (2, 3)), mode="reflect")
    np.testing.assert_array_equal(found["image"].array[0], np.pad(expected, ((2, 2), (0, 0), (0, 0)))[:, 4:12, 4:12])
