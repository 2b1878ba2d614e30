"""Each check finds what was broken, and nothing else."""

import gzip

import numpy as np
import pytest
from broken_subjects import AFFINE, of_arrays, set_header, subject, told, voxels, write

import patchflow as pf
from patchflow.quality import check_subjects
from patchflow.quality.labels import Regions

IMAGE, LABEL = voxels(0)


def found(one, **options):
    return told(check_subjects([one], **options))


def test_a_sound_subject_has_no_findings(tmp_path):
    report = check_subjects([write(tmp_path, 0)], classes={1: "rim", 2: "core"})
    assert report.findings == ()
    assert report.exit_code(strict=True) == 0
    assert str(report) == f"1 subject, 2 images, {IMAGE.nbytes * 1.5 / 1024:.1f} KiB of voxels: 0 errors, 0 warnings, 0 notes"


def test_facts_are_those_of_the_voxels(tmp_path):
    (facts,) = check_subjects([write(tmp_path, 0)]).subjects
    image, label = facts.images["image"], facts.images["label"]
    assert (image.shape, image.dtype, image.orientation) == ((1, 24, 22, 18), "int16", "RAS")
    np.testing.assert_allclose(image.spacing, (0.9, 0.9, 1.5), rtol=1e-6)
    held = image.intensities
    assert (held.low, held.high) == (IMAGE.min(), IMAGE.max())
    np.testing.assert_allclose((held.mean, held.std), (IMAGE.mean(), IMAGE.std()), rtol=1e-9)
    np.testing.assert_allclose(held.percentiles, np.percentile(IMAGE, (0.5, 50, 99.5)), atol=1)
    inside = (held.edges[0] <= IMAGE) & (held.edges[1] >= IMAGE)
    assert sum(held.counts) == inside.sum()
    assert [(part.value, part.voxels, part.parts) for part in label.classes] == [(1, (LABEL == 1).sum(), 1), (2, (LABEL == 2).sum(), 1)]
    np.testing.assert_allclose(label.classes[1].millilitres, (LABEL == 2).sum() * 0.9 * 0.9 * 1.5 / 1000, rtol=1e-6)


# Files


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_a_truncated_file(tmp_path, cut):
    one = write(tmp_path, 0)
    path = tmp_path / "s0" / "image.nii.gz"
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * cut)])
    report = check_subjects([one])
    assert told(report) == [("readable", "s0", "image")]
    assert str(path) in report.findings[0].sentence
    assert report.exit_code() == 1
    assert list(report.subjects[0].images) == ["label"]
    assert report.subjects[0].missing == ("image",)


def test_a_file_that_is_gone_one_of_no_format_and_one_whose_checksum_is_wrong(tmp_path):
    subjects = [write(tmp_path, number) for number in range(3)]
    (tmp_path / "s0" / "label.nii.gz").unlink()
    (tmp_path / "s1" / "image.nii.gz").write_bytes(gzip.compress(b"not an image" * 100))
    damaged = bytearray((tmp_path / "s2" / "image.nii.gz").read_bytes())
    damaged[-6] ^= 1
    (tmp_path / "s2" / "image.nii.gz").write_bytes(damaged)
    report = check_subjects(subjects, num_workers=2)
    assert told(report) == [("readable", "s0", "label"), ("readable", "s1", "image"), ("readable", "s2", "image")]


def test_what_breaks_a_check_is_a_finding_and_stops_nothing(monkeypatch):
    one, two = of_arrays("one"), of_arrays("two", image=IMAGE + 1, label=np.roll(LABEL, 1))

    def broken():
        raise RuntimeError("out of luck")

    monkeypatch.setattr(one["image"], "load", broken)
    report = check_subjects([one, two])
    assert told(report) == [("failed", "one", "image")]
    assert "RuntimeError: out of luck" in report.findings[0].sentence


# Grids


def moved(**changes):
    affine = AFFINE.copy()
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("label", "affine", "check"),
    [
        (LABEL[:-1], AFFINE, "shape"),
        (None, moved(a00=1.1), "spacing"),
        (None, moved(a03=-21), "place"),
        (None, np.diag([-1.0, 1, 1, 1]) @ AFFINE, "orientation"),
    ],
)
def test_a_label_map_that_lies_elsewhere(tmp_path, label, affine, check):
    one = write(tmp_path, 0, label=label, label_affine=affine)
    report = check_subjects([one])
    assert told(report, "error") == [(check, "s0", "label")]
    assert len(report.findings) == 1


def test_affines_that_differ_by_rounding_are_one(tmp_path):
    assert found(write(tmp_path, 0, label_affine=moved(a00=0.90001, a03=-20.001))) == []


def test_sform_and_qform_that_disagree(tmp_path):
    one = write(tmp_path, 0)
    set_header(tmp_path / "s0" / "image.nii.gz", qoffset_x=-25.0)
    report = check_subjects([one])
    assert told(report, "warning") == [("forms", "s0", "image")]
    assert "5 mm apart" in report.findings[0].sentence


def test_a_qform_that_is_not_set_is_fine_and_none_at_all_is_noted(tmp_path):
    one = write(tmp_path, 0)
    set_header(tmp_path / "s0" / "image.nii.gz", qoffset_x=-25.0, qform_code=0)
    assert found(one) == []
    for name in ("image", "label"):
        set_header(tmp_path / "s0" / f"{name}.nii.gz", sform_code=0, qform_code=0)
    report = check_subjects([subject(tmp_path, 0)])
    assert told(report, "note") == [("forms", "s0", "label"), ("forms", "s0", "image")]
    assert len(report.findings) == 2


# Intensities


def floats(**values):
    image = IMAGE.astype(np.float32)
    for place, value in zip(((0, 0, 0), (1, 2, 3), (4, 5, 6)), values.values(), strict=False):
        image[place] = value
    return image


def test_nan_and_infinity():
    report = check_subjects([of_arrays("s", image=floats(a=np.nan, b=np.inf, c=-np.inf))])
    assert told(report, "error") == [("finite", "s", "image")]
    assert report.findings[0].sentence == f"1 NaN and 2 infinite of {IMAGE.size} voxels"
    held = report.subjects[0].images["image"].intensities
    rest = IMAGE.astype(np.float64)
    rest = rest.reshape(-1)[np.isfinite(floats(a=np.nan, b=np.inf, c=-np.inf)).reshape(-1)]
    np.testing.assert_allclose((held.low, held.high, held.mean, held.std), (rest.min(), rest.max(), rest.mean(), rest.std()), rtol=1e-9)


def test_an_image_of_nan_alone():
    report = check_subjects([of_arrays("s", image=np.full(IMAGE.shape, np.nan, np.float32))])
    assert told(report) == [("finite", "s", "image")]
    assert report.subjects[0].images["image"].intensities is None


def test_values_that_float32_does_not_hold():
    image = IMAGE.astype(np.float64)
    image[0, 0, 0] = 1e39
    assert "as float32" in check_subjects([of_arrays("s", image=image)]).findings[0].sentence


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_constant_images(dtype):
    assert found(of_arrays("s", image=np.full(IMAGE.shape, 7, dtype))) == [("constant", "s", "image")]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_constant_channel(dtype):
    image = np.stack([IMAGE, np.zeros_like(IMAGE)]).astype(dtype)
    report = check_subjects([of_arrays("s", image=image)])
    assert told(report) == [("constant", "s", "image")]
    assert "channel 1 holds one value" in report.findings[0].sentence


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("end", ["highest", "lowest"])
def test_clipped_images(dtype, end):
    low, high = np.percentile(IMAGE, (5, 95))
    clipped = np.clip(IMAGE, None, round(high)) if end == "highest" else np.clip(IMAGE, round(low), None)
    report = check_subjects([of_arrays("s", image=clipped.astype(dtype))])
    assert told(report, "warning") == [("clipped", "s", "image")]
    assert f"hold the {end} value" in report.findings[0].sentence


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_background_and_what_scanners_cut_is_not_clipped(dtype):
    distance = np.linalg.norm(np.moveaxis(np.indices(IMAGE.shape), 0, -1) - np.array(IMAGE.shape) / 2, axis=-1)
    masked = np.where(distance < 8, IMAGE, 0)
    air = np.clip(np.where(distance < 8, IMAGE, IMAGE - 1120), -1024, None)
    windowed = np.where(distance < 8, IMAGE, -160)
    for image in (masked, air, windowed, (distance < 8)):
        assert found(of_arrays("s", image=image.astype(dtype))) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.where(LABEL == 2, 32767, IMAGE).astype(np.int16), "reach 32767"),
        (np.where(np.arange(18) == 3, -32768, IMAGE).astype(np.int16), "reach -32768"),
        ((IMAGE.astype(np.int32) - 100).astype(np.uint16), "have wrapped round"),
    ],
)
def test_the_ends_of_a_dtype(image, words):
    report = check_subjects([of_arrays("s", image=image)], skip=["clipped"])
    assert told(report, "warning") == [("range", "s", "image")]
    assert words in report.findings[0].sentence


# Labels


def test_labels_that_were_not_declared():
    report = check_subjects([of_arrays("s")], classes=[1])
    assert told(report, "error") == [("labels", "s", "label")]
    assert report.findings[0].sentence == f"holds 2 ({(LABEL == 2).sum()} voxels), and the classes declared are 0, 1"
    assert found(of_arrays("s"), classes={"label": [1, 2]}) == []
    assert found(of_arrays("s"), classes={"other": [1]}) == []


def test_negative_labels_and_fractions_and_intensities():
    assert found(of_arrays("s", label=-LABEL.astype(np.int16))) == [("labels", "s", "label")]
    assert found(of_arrays("s", label=LABEL * 0.5)) == [("readable", "s", "label")]
    noise = np.random.default_rng(0).integers(0, 200, LABEL.shape).astype(np.uint8)
    assert found(of_arrays("s", label=noise)) == [("labels", "s", "label")]


def test_empty_labels():
    report = check_subjects([of_arrays("s", label=np.zeros_like(LABEL))])
    assert told(report, "warning") == [("empty", "s", "label")]
    assert report.exit_code() == 0
    assert report.exit_code(strict=True) == 1
    assert found(of_arrays("s", label=np.zeros_like(LABEL)), skip="empty") == []


def test_islands():
    label = LABEL.copy()
    label[0, 0, 0:2] = 2
    label[-1, -1, -1] = 2
    report = check_subjects([of_arrays("s", label=label)], classes={1: "rim", 2: "core"})
    assert told(report, "note") == [("islands", "s", "label")]
    said = "label 2 (core) has 2 of its 3 parts of at most 3 voxels and alone in the background (3 voxels in all), the first at (0, 0, 0)"
    assert report.findings[0].sentence == said
    assert found(of_arrays("s", label=label), island_voxels=0) == []
    label[0, 1, 2] = label[-2, -2, -2] = 1  # beside, by a corner
    assert found(of_arrays("s", label=label)) == []
    small = np.zeros_like(LABEL)
    small[5, 5, 5] = 1  # all that there is, and no island
    assert found(of_arrays("s", label=small)) == []


def test_islands_of_many_labels_are_told_together():
    label = np.zeros(LABEL.shape, np.uint8)
    for value in range(1, 9):
        label[2 * value, 0:2, 0:5] = label[2 * value, 9, 9] = value
    report = check_subjects([of_arrays("s", label=label)])
    assert len(report.of(check="islands")) == 7
    assert report.of(check="islands")[-1].sentence == "and so have 2 more labels"


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_known_of_a_label_map_without_its_voxels(channels):
    label = np.random.default_rng(2).integers(-1, 3, (channels, 9, 7, 7)).astype(np.int16) * (np.indices((9, 7, 7)).sum(0) > 10)
    regions = Regions(label.shape)
    for channel in label:
        for first in range(0, 7, 3):
            regions.add(np.ascontiguousarray(channel[:, :, first : first + 3].T))
    found = regions.summary(0.5, 3)
    values, counts = np.unique(label[label != 0], return_counts=True)
    assert [(part.value, part.voxels, part.millilitres) for part in found.classes] == [
        (value, count, count / 2) for value, count in zip(values, counts, strict=True)
    ]
    held = (label != 0).sum(axis=0)
    assert regions.middle() == tuple(int(np.argmax(held.sum(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1)))
    for axis in range(3):
        for place in range(label.shape[axis + 1]):
            (plane,) = regions.planes([(axis, place)])
            np.testing.assert_array_equal(plane, label[0].take(place, axis))


# Arguments


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 3}, "classes must be"),
        ({"classes": {1.5: "x"}}, "must map labels"),
        ({"classes": "liver"}, "classes must be"),
        ({"outlier": 0}, "above 0"),
        ({"outlier": float("nan")}, "above 0"),
        ({"island_voxels": -1}, "island_voxels"),
        ({"skip": ["island"]}, "island"),
        ({"skip": ["readable"]}, "readable"),
        ({"num_workers": -1}, "num_workers"),
    ],
)
def test_arguments_that_cannot_be_used(options, words):
    with pytest.raises(pf.ArgumentError, match=words):
        check_subjects([of_arrays("s")], **options)


def test_subjects_that_cannot_be_checked():
    with pytest.raises(pf.ArgumentError, match="no subjects"):
        check_subjects([])
    with pytest.raises(pf.ArgumentError, match="list of"):
        check_subjects(of_arrays("s"))
    with pytest.raises(pf.SubjectError, match="two subjects are named 's'"):
        check_subjects([of_arrays("s"), of_arrays("s")])
