"""Pipelines: what they check, what they return, and that their fingerprint tells them apart in every process."""

import functools
import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, ImageFileError, SubjectError, TransformError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.preprocess import (
    Clamp,
    CropOrPad,
    CropToForeground,
    EnsureMultiple,
    HistogramStandardize,
    KeepLargest,
    OneHotRegions,
    Pad,
    RemapLabels,
    ReplaceNonFinite,
    Resample,
    Rescale,
    RobustNormalize,
    Step,
    ToCanonical,
    Window,
    ZNormalize,
)

AFFINE = np.diag([2.0, 3, 4, 1])


def subject(image: np.ndarray | None = None) -> pf.Subject:
    image = np.arange(24, dtype=np.int16).reshape(2, 3, 4) if image is None else image
    label = (np.arange(24).reshape(2, 3, 4) % 3).astype(np.uint8)
    return pf.Subject("s1", image=pf.ScalarImage(image, affine=AFFINE), label=pf.LabelMap(label, affine=AFFINE), age=4)


def test_no_step_leaves_everything_as_it_is() -> None:
    run = pf.Pipeline().run(subject())
    assert run["image"].map.is_identity
    np.testing.assert_array_equal(run["image"].array, subject()["image"].data)
    np.testing.assert_array_equal(run["label"].array, subject()["label"].data)


def test_a_pipeline_of_a_subject_is_a_subject() -> None:
    found = pf.Pipeline([Window(10, 10, out=(0, 1))])(subject())
    assert found.name == "s1"
    assert found.metadata == {"age": 4}
    assert isinstance(found["label"], pf.LabelMap)
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(found.affine, AFFINE)
    np.testing.assert_allclose(found["image"].data, np.clip((subject()["image"].data - 5) / 10, 0, 1), atol=1e-7)
    np.testing.assert_array_equal(found["label"].data, subject()["label"].data)


class TestChecks:
    @pytest.mark.parametrize(
        ("value", "message"), [(np.nan, "2 voxels are NaN and 0 infinite"), (-np.inf, "0 voxels are NaN and 2 infinite")]
    )
    @pytest.mark.parametrize("steps", [[], [ZNormalize()], [Clamp(0, 1)], [lambda d: d]])
    def test_voxels_that_are_not_finite_are_named(self, value: float, message: str, steps: list) -> None:
        image = np.zeros((2, 2, 3, 4), np.float32)
        image[1, 0, 2, 1] = image[1, 1, 2, 3] = value
        with pytest.raises(
            ImageError, match=rf"subject 's1', image 'image' \(.*\): {message}.*channel 1 at voxel \(0, 2, 1\).*ReplaceNonFinite"
        ):
            pf.Pipeline(steps).run(subject(image))

    def test_they_are_found_beyond_the_first_block(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("patchflow.preprocess.pipeline._BLOCK", 5)
        image = np.zeros((2, 3, 4), np.float64)
        image[1, 2, 0] = image[1, 2, 3] = np.nan
        with pytest.raises(ImageError, match=r"2 voxels are NaN.*voxel \(1, 2, 0\)"):
            pf.Pipeline().run(subject(image))

    @pytest.mark.parametrize("image", [np.full((2, 3, 4), 1e300), np.full((2, 3, 4), -1e39)])
    def test_values_beyond_float32(self, image: np.ndarray) -> None:
        with pytest.raises(ImageError, match=r"subject 's1', image 'image'.*do not fit float32"):
            pf.Pipeline().run(subject(image))
        pf.Pipeline([Clamp(-1, 1)]).run(subject(image))

    def test_a_gain_that_float32_does_not_hold(self) -> None:
        with pytest.raises(ImageError, match="do not fit float32"):
            pf.Pipeline([ZNormalize(mean=0, std=1e-30)]).run(pf.Subject("s1", image=pf.ScalarImage(np.full((1, 1, 2), 1e20))))
        with pytest.raises(ImageError, match="too close or too far apart"):
            pf.Pipeline([Rescale(), ZNormalize(mean=0, std=5e-324)]).run(pf.Subject("s1", image=pf.ScalarImage(np.array([[[0.0, 1.0]]]))))

    def test_integers_whose_dtype_reaches_too_far(self) -> None:
        found = pf.Pipeline([ZNormalize(mean=0, std=1e-30)]).run(subject(np.arange(24).reshape(2, 3, 4)))
        assert found["image"].values()[0, 0, 0, 1] == np.float32(1e30)

    def test_images_that_do_not_belong_together(self) -> None:
        whole = pf.Subject("s1", image=pf.ScalarImage(np.zeros((2, 3, 4))), label=pf.LabelMap(np.zeros((2, 3, 5), int)))
        with pytest.raises(SubjectError, match=r"'s1': 'image' .* and 'label' .* different shapes"):
            pf.Pipeline().run(whole)

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ImageFileError, match=r"subject 's1', image 'image': .*none\.nii\.gz does not exist"):
            pf.Pipeline().run(pf.Subject("s1", image=pf.ScalarImage(tmp_path / "none.nii.gz")))
        with pytest.raises(ImageError, match=r"subject 's1', image 'label': .*must be integers"):
            pf.Pipeline().run(pf.Subject("s1", label=pf.LabelMap(np.full((2, 2, 2), 0.5))))

    @pytest.mark.parametrize("step", ["ZNormalize", ZNormalize, None, 3])
    def test_what_is_no_step(self, step: object) -> None:
        with pytest.raises(ArgumentError, match="steps and functions"):
            pf.Pipeline([step])  # type: ignore[list-item]

    def test_a_class_of_steps_is_told_how_to_be_written(self) -> None:
        with pytest.raises(ArgumentError, match=r"ZNormalize is a class of steps: write ZNormalize\(\)$"):
            pf.Pipeline([ZNormalize])  # type: ignore[list-item]

    def test_one_step_is_no_list(self) -> None:
        with pytest.raises(ArgumentError, match=r"write pf\.Pipeline\(\[Clamp\("):
            pf.Pipeline(Clamp(0, 1))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Double(Step):
    factor: float = 2

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        return {key: replace(volume, array=volume.array * int(self.factor)) for key, volume in volumes.items()}


class Losing(Step):
    def to_dict(self) -> dict:
        return {"step": "losing"}

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        return {"image": volumes["image"]}


def test_steps_of_the_users_own() -> None:
    run = pf.Pipeline([Double(), Clamp(high=40)]).run(subject())
    np.testing.assert_array_equal(run["image"].values(), np.minimum(subject()["image"].data * 2, 40))
    assert pf.Pipeline([Double()]).fingerprint() != pf.Pipeline([Double(3)]).fingerprint()
    with pytest.raises(TransformError, match="Losing changed the names"):
        pf.Pipeline([Losing()]).run(subject())


def add_label(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**values, "image": values["image"] + values["label"]}


class TestFunctions:
    def test_values_in_and_out(self) -> None:
        def check(values: dict) -> dict:
            assert values["image"].dtype == np.float32
            assert values["label"].dtype == np.uint8
            values["image"] *= 2  # arrays of its own: the source is left alone
            values["label"][:] = 1
            return values

        whole = subject()
        run = pf.Pipeline([Window(10, 10), check, Clamp(high=25)]).run(whole)
        np.testing.assert_array_equal(run["image"].values(), np.minimum(np.clip(whole["image"].data, 5, 15) * 2, 25))
        assert (run["label"].array == 1).all()
        assert whole["label"].data.max() == 2

    def test_other_dtypes_channels_and_tensors(self) -> None:
        def stack(values: dict) -> dict:
            image = values["image"].astype(np.float64)
            return {"image": torch.from_numpy(np.concatenate([image, image + 0.5])), "label": values["label"].astype(np.float32)}

        run = pf.Pipeline([stack]).run(subject())
        assert run["image"].array.shape == (2, 2, 3, 4)
        assert run["image"].array.dtype == np.float32
        assert run["image"].array[1, 1, 2, 3] == 23.5
        assert run["label"].array.dtype == np.uint8
        np.testing.assert_array_equal(run["image"].affine, AFFINE)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda d: None, "returned NoneType, not a dict"),
            (lambda d: {"image": d["image"]}, r"returned images \['image'\], not \['image', 'label'\]"),
            (lambda d: {**d, "more": d["image"]}, r"returned images \['image', 'label', 'more'\]"),
            (lambda d: {**d, "image": d["image"][:, 1:]}, r"image 'image'.*shape \(1, 1, 3, 4\), not \(C, 2, 3, 4\)"),
            (lambda d: {**d, "image": d["image"][0]}, r"shape \(2, 3, 4\), not"),
            (lambda d: {**d, "image": 3}, "is a int, not an array"),
        ],
    )
    def test_what_cannot_be_used(self, function, message: str) -> None:
        with pytest.raises(TransformError, match=message) as caught:
            pf.Pipeline([function]).run(subject())
        assert "subject 's1'" in str(caught.value)
        assert "<lambda>" in str(caught.value)

    def test_labels_that_are_no_integers(self) -> None:
        with pytest.raises(ImageError, match=r"subject 's1', image 'label'.*<lambda>: labels must be integers"):
            pf.Pipeline([lambda d: {**d, "label": d["label"] / 2}]).run(subject())

    def test_its_own_errors_say_where_they_come_from(self) -> None:
        def fail(values: dict) -> dict:
            raise RuntimeError("no brain found")

        with pytest.raises(RuntimeError, match="no brain found") as caught:
            pf.Pipeline([fail]).run(subject())
        assert any("fail for subject 's1'" in note for note in caught.value.__notes__)


class Offset:
    def __init__(self, offset: float) -> None:
        self.offset = offset

    def __call__(self, values: dict) -> dict:
        return {**values, "image": values["image"] + self.offset}

    def method(self, values: dict) -> dict:
        return self(values)


def closed_over(offset: object):
    def add(values: dict) -> dict:
        return {**values, "image": values["image"] + offset}

    return add


class TestFingerprint:
    def test_every_parameter_changes_it(self) -> None:
        steps: list = [
            [],
            [ZNormalize()],
            [ZNormalize("image")],
            [ZNormalize(mean=0)],
            [ZNormalize(std=1)],
            [ZNormalize(mask="label")],
            [ZNormalize(above=0)],
            [ZNormalize(clip=(0, 1))],
            [ZNormalize(per_channel=True)],
            [Rescale()],
            [Rescale((0, 2))],
            [Rescale(percentiles=(1, 100))],
            [Rescale(mask="label")],
            [Rescale(above=0)],
            [Rescale(per_channel=True)],
            [Window(0, 1)],
            [Window(1, 1)],
            [Window(0, 2)],
            [Window(0, 1, (0, 1))],
            [Clamp(0)],
            [Clamp(high=0)],
            [Clamp(0, 1)],
            [ReplaceNonFinite()],
            [ReplaceNonFinite(1)],
            [RobustNormalize()],
            [RobustNormalize("mad")],
            [RobustNormalize(per_channel=True)],
            [HistogramStandardize((0, 1), (1, 99))],
            [HistogramStandardize((0, 2), (1, 99))],
            [HistogramStandardize((0, 1), (1, 98))],
            [ToCanonical()],
            [Resample(spacing=1)],
            [Resample(shape=1)],
            [Resample(like=VoxelGrid((1, 1, 1), np.eye(4)))],
            [Resample(like=VoxelGrid((1, 1, 1), AFFINE))],
            [Resample(spacing=1, image_interpolation="cubic")],
            [Resample(spacing=1, label_interpolation="linear")],
            [Resample(spacing=1, anti_alias=False)],
            [Resample(spacing=1, thick_ratio=3)],
            [Resample(spacing=1, fill=1)],
            [Resample(spacing=1, label_fill=1)],
            [CropToForeground("image")],
            [CropToForeground("label")],
            [CropToForeground("image", 1)],
            [CropToForeground("image", margin=1)],
            [CropOrPad(4)],
            [CropOrPad(4, "border")],
            [Pad(4)],
            [Pad(4, 5)],
            [Pad(4, fill=1)],
            [EnsureMultiple(4)],
            [EnsureMultiple(4, "crop")],
            [RemapLabels({1: 2})],
            [RemapLabels({1: 2}, others=0)],
            [KeepLargest()],
            [KeepLargest(connectivity=26)],
            [KeepLargest(labels=(1,))],
            [OneHotRegions([1])],
            [OneHotRegions([(1, 2)])],
            [ZNormalize(), Clamp(0)],
            [Clamp(0), ZNormalize()],
            [Clamp(0), Clamp(0)],
            [add_label],
            [Offset(1)],
            [Offset(2)],
            [Offset(1).method],
            [closed_over(1)],
            [closed_over(1.5)],
            [closed_over(np.arange(3))],
            [closed_over(np.arange(4))],
            [closed_over((1, "a", None, {2: {3}}, Path("a")))],
            [functools.partial(add_label)],
            [lambda d: {**d, "image": d["image"] + 1}],
            [lambda d: {**d, "image": d["image"] + 2}],
        ]
        assert len({pf.Pipeline(made).fingerprint() for made in steps}) == len(steps)

    def test_equal_parameters_give_the_same(self) -> None:
        pairs = [
            ([Window(40, 400, (0, 1))], [Window(40.0, np.float32(400), [0, 1])]),
            ([ZNormalize("image")], [ZNormalize(["image"])]),
            ([Resample(spacing=2)], [Resample(spacing=[2.0, 2, np.float32(2)])]),
            ([RemapLabels({1: 2, 3: 4})], [RemapLabels({3: np.int64(4), 1: 2})]),
            ([CropOrPad(4)], [CropOrPad([4, 4, 4])]),
            ([Offset(1)], [Offset(1)]),
            ([closed_over(2)], [closed_over(2)]),
        ]
        for one, other in pairs:
            assert pf.Pipeline(one).fingerprint() == pf.Pipeline(other).fingerprint()

    def test_it_is_plain_json(self) -> None:
        described = pf.Pipeline([ZNormalize(), add_label, Offset(float("inf"))]).to_dict()
        assert json.loads(json.dumps(described, allow_nan=False)) == described
        nothing = dict.fromkeys(["keys", "mean", "std", "mask", "above", "clip"])
        assert described["steps"][0] == {"step": "ZNormalize", **nothing, "per_channel": False}

    def test_it_is_the_same_in_another_process(self, tmp_path: Path) -> None:
        module = tmp_path / "own_steps.py"
        text = """
            import sys
            import patchflow as pf
            FACTOR = 3
            def helper(array):
                return array * FACTOR
            def scale(values):
                return {**values, "image": helper(values["image"])}
            names = {"b", "a", "c"}
            def keep(values, names=names):
                return values
            if __name__ == "__main__":
                steps = [pf.preprocess.Window(40, 400), scale, keep, lambda values: values]
                print(pf.Pipeline(steps).fingerprint())
        """
        found = []
        for factor, hash_seed in ((3, "1"), (3, "2"), (4, "1")):
            module.write_text(textwrap.dedent(text).replace("FACTOR = 3", f"FACTOR = {factor}"))
            environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(pf.__file__).parents[1])}
            done = subprocess.run([sys.executable, str(module)], capture_output=True, text=True, timeout=60, env=environment, check=True)
            found.append(done.stdout)
        assert found[0] == found[1] != found[2]

    def test_a_text_of_the_users_own(self) -> None:
        def first(values: dict) -> dict:
            return values

        def second(values: dict) -> dict:
            return dict(values)

        first.fingerprint = second.fingerprint = "version 1"  # type: ignore[attr-defined]
        assert pf.Pipeline([first]).fingerprint() == pf.Pipeline([second]).fingerprint()
        second.fingerprint = "version 2"  # type: ignore[attr-defined]
        assert pf.Pipeline([first]).fingerprint() != pf.Pipeline([second]).fingerprint()

    @pytest.mark.parametrize("function", [eval("lambda d: d"), np.abs, dict, closed_over(object()), closed_over(open)])
    def test_functions_that_cannot_be_told_apart(self, function) -> None:
        with pytest.raises(ArgumentError, match=r"attribute `fingerprint`|steps and functions"):
            pf.Pipeline([function])
