"""Steps fold into the map, leave the stored voxels alone, and give the values that their formulas give."""

from dataclasses import replace

import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, UnknownNameError
from patchflow.images.volume import Volume
from patchflow.preprocess import Clamp, ReplaceNonFinite, Rescale, Step, Window, ZNormalize
from patchflow.seeding import generator


def subject(dtype: str = "i2", **more: object) -> pf.Subject:
    image = generator(0).integers(-900, 1500, (2, 6, 7, 8)).astype(dtype)
    label = np.zeros((6, 7, 8), np.uint8)
    label[2:5, 1:4, 3:] = 2
    return pf.Subject("s1", **{"image": pf.ScalarImage(image), "label": pf.LabelMap(label), **more})


def after(*steps: Step, of: pf.Subject | None = None, key: str = "image") -> Volume:
    return pf.Pipeline(steps).run(of or subject())[key]


def source(dtype: str = "i2") -> np.ndarray:
    return subject(dtype)["image"].data.astype(np.float64)


@pytest.mark.parametrize("dtype", ["i2", "f4"])
@pytest.mark.parametrize(
    "step",
    [ZNormalize(), ZNormalize(mask="label"), Rescale(), Window(40, 400), Clamp(0), ReplaceNonFinite()],
    ids=lambda s: type(s).__name__,
)
def test_stored_voxels_are_left_alone(step: Step, dtype: str) -> None:
    whole = subject(dtype)
    volume = after(step, of=whole)
    assert np.shares_memory(volume.array, whole["image"].load().array)
    assert volume.array.dtype == np.dtype(dtype)


def channels(dtype: str = "i2") -> pf.Subject:
    """Two channels that share nothing."""
    image = subject()["image"].data
    image[1] = image[1] / 10 + 900
    return subject(image=pf.ScalarImage(image.astype(dtype)))


class TestPerChannel:
    @pytest.mark.parametrize("dtype", ["i2", "i4", "f4"])
    @pytest.mark.parametrize(
        "step", [ZNormalize(mask="label"), ZNormalize(above=920), ZNormalize(std=3), Rescale((-1, 2)), Rescale(percentiles=(5, 90))]
    )
    def test_each_is_done_as_if_it_were_alone(self, step: Step, dtype: str) -> None:
        whole = channels(dtype)
        alone = [after(step, of=subject(image=pf.ScalarImage(channel))).values() for channel in whole["image"].load().array]
        found = after(replace(step, per_channel=True), of=whole)
        assert found.array.dtype == np.float32
        np.testing.assert_array_equal(found.values(), np.concatenate(alone), strict=True)
        assert abs(after(step, of=whole).values() - found.values()).max() > 0.1
        np.testing.assert_array_equal(whole["image"].load().array, channels(dtype)["image"].load().array)

    def test_values_by_numpy(self) -> None:
        values = channels()["image"].data.astype(np.float64)
        mean, std = values.mean((1, 2, 3), keepdims=True), values.std((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(after(ZNormalize(per_channel=True), of=channels()).values(), (values - mean) / std, atol=1e-6)
        clipped = values.clip(-100, 960)
        mean, std = clipped.mean((1, 2, 3), keepdims=True), clipped.std((1, 2, 3), keepdims=True)
        found = after(ZNormalize(per_channel=True, clip=(-100, 960)), of=channels()).values()
        np.testing.assert_allclose(found, (clipped - mean) / std, atol=1e-5)

    def test_steps_before_and_after(self) -> None:
        alone = [
            after(Clamp(0), ZNormalize(), Clamp(-1, 1), of=subject(image=pf.ScalarImage(channel))).values()
            for channel in channels()["image"].load().array
        ]
        found = after(Clamp(0), ZNormalize(per_channel=True), Clamp(-1, 1), of=channels()).values()
        np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-6, atol=1e-7)

    def test_one_channel_and_channels_that_are_alike_stay_as_they_are_stored(self) -> None:
        one = channels()["image"].load().array[:1]
        for image in (one, np.concatenate([one, one])):
            found = after(ZNormalize(per_channel=True), of=subject(image=pf.ScalarImage(image)))
            assert found.array.dtype == np.int16
            np.testing.assert_array_equal(found.values(), after(ZNormalize(), of=subject(image=pf.ScalarImage(image))).values())

    def test_a_channel_that_is_constant_is_named(self) -> None:
        image = channels()["image"].data
        image[1] = 7
        with pytest.raises(ImageError, match=r"image 'image' \(array.*, channel 1\).* all 7"):
            after(ZNormalize(per_channel=True), of=subject(image=pf.ScalarImage(image)))
        with pytest.raises(ImageError, match=r"channel 1\).* all 7"):
            after(Rescale(per_channel=True), of=subject(image=pf.ScalarImage(image)))

    def test_numbers_that_are_given_are_those_of_all(self) -> None:
        with pytest.raises(ArgumentError, match="per_channel would have no effect"):
            ZNormalize(mean=0, std=1, per_channel=True)


class TestZNormalize:
    @pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
    def test_mean_and_standard_deviation(self, dtype: str) -> None:
        values = source(dtype)
        found = after(ZNormalize(), of=subject(dtype)).values()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, (values - values.mean()) / values.std(), atol=1e-6)

    def test_of_the_voxels_of_a_label(self) -> None:
        values, mask = source(), subject()["label"].data[0] > 0
        inside = values[:, mask]
        np.testing.assert_allclose(after(ZNormalize(mask="label")).values(), (values - inside.mean()) / inside.std(), atol=1e-6)

    def test_any_channel_of_the_label_counts(self) -> None:
        label = np.zeros((2, 6, 7, 8), np.uint8)
        label[0, 0, 0, 0] = label[1, 5, 6, 7] = 1
        values = source()
        inside = values[:, [0, 5], [0, 6], [0, 7]]
        found = after(ZNormalize(mask="both"), of=subject(both=pf.LabelMap(label))).values()
        np.testing.assert_allclose(found, (values - inside.mean()) / inside.std(), atol=1e-6)

    def test_given_numbers(self) -> None:
        values = source()
        np.testing.assert_array_equal(after(ZNormalize(mean=100, std=50)).values(), ((values - 100) / 50).astype(np.float32))
        np.testing.assert_allclose(after(ZNormalize(mean=100)).values(), (values - 100) / values.std(), rtol=1e-5)
        np.testing.assert_allclose(after(ZNormalize(std=2)).values(), (values - values.mean()) / 2, rtol=1e-4)

    @pytest.mark.parametrize("value", [0.1, 3, -1e6])
    @pytest.mark.parametrize("dtype", ["i4", "f4"])
    def test_a_constant_image_is_refused(self, value: float, dtype: str) -> None:
        constant = pf.Subject("s1", flat=pf.ScalarImage(np.full((30, 30, 30), value, dtype)))
        with pytest.raises(ImageError, match=r"subject 's1', image 'flat' \(array.*are all"):
            after(ZNormalize("flat"), of=constant, key="flat")
        assert after(ZNormalize("flat", std=1, mean=0), of=constant, key="flat").values()[0, 0, 0, 0] == np.dtype(dtype).type(value)

    def test_one_that_is_constant_after_a_clamp(self) -> None:
        with pytest.raises(ImageError, match="are all 2000"):
            after(Clamp(low=2000), ZNormalize())

    def test_one_that_is_constant_in_the_mask(self) -> None:
        image = np.arange(6 * 7 * 8).reshape(6, 7, 8)
        image[2:5, 1:4, 3:] = 4
        with pytest.raises(ImageError, match="all 4 where 'label' is above 0"):
            after(ZNormalize(mask="label"), of=subject(image=pf.ScalarImage(image)))

    def test_masks_that_are_none(self) -> None:
        with pytest.raises(ImageError, match=r"image 'empty'.*no voxel is above 0"):
            after(ZNormalize(mask="empty"), of=subject(empty=pf.LabelMap(np.zeros((6, 7, 8), np.uint8))))
        with pytest.raises(UnknownNameError, match=r"subject 's1' has no image 'brain': it has 'image', 'label'"):
            after(ZNormalize(mask="brain"))
        with pytest.raises(ArgumentError, match="'image' of subject 's1', which is a scalar image"):
            after(ZNormalize(mask="image"))

    @pytest.mark.parametrize(
        "arguments",
        [{"std": 0}, {"std": -1}, {"std": np.nan}, {"mean": np.inf}, {"mean": "a"}, {"mean": 0, "std": 1, "mask": "label"}, {"keys": ()}],
    )
    def test_arguments_that_cannot_be_used(self, arguments: dict) -> None:
        with pytest.raises(ArgumentError):
            ZNormalize(**arguments)


class TestRescale:
    def test_onto_zero_to_one(self) -> None:
        values = source()
        found = after(Rescale()).values()
        np.testing.assert_allclose(found, (values - values.min()) / (values.max() - values.min()), atol=1e-6)
        assert (found.min(), found.max()) == (0, 1)

    @pytest.mark.parametrize("dtype", ["i2", "f4"])
    def test_percentiles_become_the_ends(self, dtype: str) -> None:
        values = source(dtype)
        low, high = np.percentile(values, (5, 90))
        found = after(Rescale(out=(-1, 3), percentiles=(5, 90)), of=subject(dtype)).values()
        np.testing.assert_allclose(found, np.clip((values - low) / (high - low) * 4 - 1, -1, 3), atol=1e-5)
        assert (found.min(), found.max()) == (-1, 3)

    def test_of_the_voxels_of_a_label(self) -> None:
        values, mask = source(), subject()["label"].data[0] > 0
        low, high = values[:, mask].min(), values[:, mask].max()
        np.testing.assert_allclose(after(Rescale(mask="label")).values(), np.clip((values - low) / (high - low), 0, 1), atol=1e-6)

    def test_an_image_without_a_range_is_refused(self) -> None:
        mostly = np.zeros((6, 7, 8), np.float32)
        mostly[0, 0, 0] = 5
        with pytest.raises(ImageError, match=r"image 'mostly'.*are all 0"):
            after(Rescale(percentiles=(0, 90), keys="mostly"), of=subject(mostly=pf.ScalarImage(mostly)))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"out": (1, 0)},
            {"out": (1, 1)},
            {"out": 1},
            {"out": (0, np.inf)},
            {"out": (0, 1, 2)},
            {"percentiles": (-1, 50)},
            {"percentiles": (1, 101)},
        ],
    )
    def test_arguments_that_cannot_be_used(self, arguments: dict) -> None:
        with pytest.raises(ArgumentError):
            Rescale(**arguments)


class TestWindowAndClamp:
    def test_a_window_keeps_values_or_maps_them(self) -> None:
        values = source()
        np.testing.assert_array_equal(after(Window(40, 400)).values(), np.clip(values, -160, 240))
        np.testing.assert_allclose(after(Window(40, 400, out=(0, 1))).values(), (np.clip(values, -160, 240) + 160) / 400, atol=1e-6)

    def test_limits_on_one_side_or_both(self) -> None:
        values = source()
        np.testing.assert_array_equal(after(Clamp(low=-100)).values(), np.maximum(values, -100))
        np.testing.assert_array_equal(after(Clamp(high=100)).values(), np.minimum(values, 100))
        np.testing.assert_array_equal(after(Clamp(-100, 100)).values(), np.clip(values, -100, 100))

    def test_arguments_that_cannot_be_used(self) -> None:
        for make in (
            lambda: Window(0, 0),
            lambda: Window(0, -1),
            lambda: Window(np.nan, 1),
            Clamp,
            lambda: Clamp(1, 0),
            lambda: Clamp(np.nan),
        ):
            with pytest.raises(ArgumentError):
                make()


def test_steps_work_on_what_the_steps_before_made() -> None:
    values = np.clip((source() + 160) / 400, 0, 1)
    expected = (values - values.mean()) / values.std()
    volume = after(Window(40, 400, out=(0, 1)), ZNormalize())
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.values(), expected, atol=1e-6)
    low, high = np.percentile(expected, (20, 70))
    np.testing.assert_allclose(
        after(Window(40, 400, out=(0, 1)), ZNormalize(), Rescale(percentiles=(20, 70))).values(),
        np.clip((expected - low) / (high - low), 0, 1),
        atol=1e-5,
    )


def test_the_scaling_of_a_file_comes_first(tmp_path) -> None:
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(generator(1).normal(5, 2, (6, 7, 8)), np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel chooses a slope and an intercept
    image.to_filename(tmp_path / "scaled.nii.gz")
    values = nib.load(tmp_path / "scaled.nii.gz").get_fdata()
    volume = after(ZNormalize(), of=pf.Subject("s1", image=pf.ScalarImage(tmp_path / "scaled.nii.gz")))
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.values()[0], (values - values.mean()) / values.std(), atol=1e-6)


class TestKeys:
    def test_every_scalar_image_or_those_named(self) -> None:
        whole = subject(other=pf.ScalarImage(np.arange(6 * 7 * 8).reshape(6, 7, 8)))
        run = pf.Pipeline([Clamp(0, 1)]).run(whole)
        assert {key for key, volume in run.items() if volume.map.has_clamp} == {"image", "other"}
        for keys in ("other", ["other"]):
            run = pf.Pipeline([Clamp(0, 1, keys=keys)]).run(whole)
            assert {key for key, volume in run.items() if volume.map.has_clamp} == {"other"}

    def test_names_that_cannot_be_used(self) -> None:
        with pytest.raises(UnknownNameError, match=r"subject 's1' has no image 'imagee'"):
            after(Rescale(keys="imagee"))
        with pytest.raises(ArgumentError, match="image 'label' of subject 's1' is a label map"):
            after(Rescale(keys=["image", "label"]))


class TestReplaceNonFinite:
    def with_holes(self) -> pf.Subject:
        image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        image[0, 0, 1], image[1, 2, 3], image[1, 0, 0] = np.nan, np.inf, -np.inf
        return pf.Subject("s1", image=pf.ScalarImage(image))

    def test_by_a_value(self) -> None:
        whole = self.with_holes()
        found = after(ReplaceNonFinite(-7), of=whole).values()[0]
        assert found[0, 0, 1] == found[1, 2, 3] == found[1, 0, 0] == -7
        assert found[1, 2, 2] == 22
        assert np.isnan(whole["image"].data[0, 0, 0, 1])  # the source is left alone

    def test_in_the_values_as_they_are_by_then(self) -> None:
        found = after(Clamp(high=20), ReplaceNonFinite(-7), of=self.with_holes()).values()[0]
        assert found[0, 0, 1] == found[1, 0, 0] == -7
        assert found[1, 2, 3] == 20  # infinity has been limited
        assert found[0, 0, 3] == 3

    def test_steps_before_it_may_need_finite_voxels(self) -> None:
        with pytest.raises(ImageError, match="NaN"):
            after(ZNormalize(), ReplaceNonFinite(), of=self.with_holes())
        values = np.where(np.isfinite(self.with_holes()["image"].data), self.with_holes()["image"].data, 0)
        found = after(ReplaceNonFinite(), ZNormalize(), of=self.with_holes()).values()
        np.testing.assert_allclose(found, (values - values.mean()) / values.std(), atol=1e-6)
