"""Steps on label maps against numpy and scipy."""

import numpy as np
import pytest
import scipy.ndimage as ndi

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, UnknownNameError
from patchflow.images.volume import Volume
from patchflow.preprocess import KeepLargest, OneHotRegions, RemapLabels, Step
from patchflow.seeding import generator


def run(step: Step, label: np.ndarray) -> Volume:
    image = pf.ScalarImage(np.zeros(label.shape[-3:], np.float32))
    return pf.Pipeline([step]).run(pf.Subject("s1", image=image, label=pf.LabelMap(label)))["label"]


def labels(dtype: str = "uint8", highest: int = 5) -> np.ndarray:
    return generator(0).integers(0, highest, (6, 7, 8)).astype(dtype)


class TestRemapLabels:
    def test_all_at_once(self) -> None:
        found = run(RemapLabels({1: 2, 2: 1, 4: 0}), labels())
        np.testing.assert_array_equal(found.array[0], np.array([0, 2, 1, 3, 0])[labels()])
        assert found.array.dtype == np.uint8

    @pytest.mark.parametrize(
        ("dtype", "new", "expected"), [("uint8", 300, "int16"), ("uint8", -1, "int8"), ("int16", 9, "int16"), ("int64", 1, "int64")]
    )
    def test_dtypes(self, dtype: str, new: int, expected: str) -> None:
        found = run(RemapLabels({1: new}), labels(dtype))
        assert found.array.dtype == expected
        np.testing.assert_array_equal(found.array[0], np.where(labels(dtype) == 1, new, labels(dtype).astype(int)))

    def test_others(self) -> None:
        np.testing.assert_array_equal(run(RemapLabels({3: 1}, others=0), labels()).array[0], labels() == 3)
        with pytest.raises(ImageError, match=r"subject 's1', image 'label'.*the labels \[0, 1, 2, 4\]"):
            run(RemapLabels({3: 1}, others="error"), labels())

    def test_there_and_back(self) -> None:
        for step in (RemapLabels({1: 2, 2: 1}), RemapLabels({0: 0, 1: 50, 2: 60, 3: 70, 4: 80}, others="error")):
            np.testing.assert_array_equal(run(step.inverse(), run(step, labels()).array[0]).array[0], labels())
        for step in (RemapLabels({1: 3, 2: 3}), RemapLabels({1: 2}, others=0), RemapLabels({1: 2})):
            with pytest.raises(ArgumentError, match=r"no way back|say others"):
                step.inverse()

    @pytest.mark.parametrize("mapping", [{}, {1.5: 2}, {1: True}, {1: "a"}, ((1, 2), (1, 3)), 4])
    def test_what_cannot_be(self, mapping: object) -> None:
        with pytest.raises(ArgumentError):
            RemapLabels(mapping)  # type: ignore[arg-type]

    def test_scalar_images_have_no_labels(self) -> None:
        with pytest.raises(ArgumentError, match="'image' of subject 's1' is a scalar image"):
            run(RemapLabels({1: 2}, keys="image"), labels())
        with pytest.raises(UnknownNameError, match="has no label map"):
            pf.Pipeline([RemapLabels({1: 2})]).run(pf.Subject("s1", image=pf.ScalarImage(np.zeros((2, 2, 2)))))


class TestKeepLargest:
    @pytest.mark.parametrize(("connectivity", "rank"), [(6, 1), (18, 2), (26, 3)])
    @pytest.mark.parametrize("share", [0.15, 0.3, 0.5])
    def test_scipys_components(self, connectivity: int, rank: int, share: float) -> None:
        rng = generator(connectivity)
        label = rng.integers(1, 4, (15, 16, 17)).astype(np.int16) * (rng.random((15, 16, 17)) < share)
        expected = np.zeros_like(label)
        for value in (1, 2, 3):
            found, count = ndi.label(label == value, ndi.generate_binary_structure(3, rank))
            sizes = ndi.sum_labels(label == value, found, range(1, count + 1))
            expected[found == 1 + int(np.argmax(sizes))] = value  # the first of the largest, in storage order
        np.testing.assert_array_equal(run(KeepLargest(connectivity=connectivity), label).array[0], expected)

    def test_some_labels_and_channels(self) -> None:
        label = np.zeros((2, 5, 5, 5), np.uint8)
        label[0, 0, 0, :2] = label[0, 4, 4, 0] = 1
        label[0, 2, 2, :3] = label[0, 4, 0, 4] = 2
        label[1, 3, 3, 3] = 2
        found = run(KeepLargest(labels=2), label).array
        expected = label.copy()
        expected[0, 4, 0, 4] = 0
        np.testing.assert_array_equal(found, expected)
        assert label[0, 4, 0, 4] == 2

    def test_nothing_to_remove(self) -> None:
        label = np.zeros((3, 4, 5), np.uint8)
        np.testing.assert_array_equal(run(KeepLargest(), label).array[0], label)

    @pytest.mark.parametrize("arguments", [{"connectivity": 8}, {"labels": (0,)}, {"labels": ()}, {"labels": (1.5,)}])
    def test_what_cannot_be(self, arguments: dict) -> None:
        with pytest.raises(ArgumentError):
            KeepLargest(**arguments)


class TestOneHotRegions:
    def test_channels(self) -> None:
        found = run(OneHotRegions({"whole": (1, 2, 4), "core": [2, 4], "one": 4}), labels("int16"))
        np.testing.assert_array_equal(found.array, np.stack([np.isin(labels(), part) for part in ((1, 2, 4), (2, 4), (4,))]))
        assert found.array.dtype == np.uint8

    def test_what_cannot_be(self) -> None:
        for regions in ([], [()], "12", 3, [(1.5,)]):
            with pytest.raises(ArgumentError):
                OneHotRegions(regions)
        with pytest.raises(ImageError, match="has 2 channels"):
            run(OneHotRegions([1]), np.zeros((2, 3, 3, 3), np.uint8))
