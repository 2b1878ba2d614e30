import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError, UnknownNameError

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(1, 11, 9, 7)).astype(np.float32)
MASK = RNG.integers(0, 3, (1, 11, 9, 7)).astype(np.uint8)
AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
SIZES = {"patch_size": (6, 5, 8), "progress": False}


def make_subject() -> pf.Subject:
    return pf.Subject("p7", image=pf.ScalarImage(IMAGE, AFFINE), mask=pf.LabelMap(MASK, AFFINE))


def two_classes(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([0 * x, x], dim=1)


def three_regions(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, -x, x - 0.5], dim=1)


def test_logits_of_the_identity_are_the_image() -> None:
    for mode in ("crop", "average", "hann", "gaussian"):
        logits = pf.predict(nn.Identity(), make_subject(), output="logits", overlap_mode=mode, batch_size=3, **SIZES)
        np.testing.assert_allclose(logits.numpy(), IMAGE, rtol=0, atol=1e-6 * np.ptp(IMAGE))


def test_labels_are_the_greatest_channel_and_ties_the_lower() -> None:
    labels = pf.predict(two_classes, make_subject(), overlap_mode="crop", **SIZES)
    assert labels.dtype == torch.uint8
    np.testing.assert_array_equal(labels.numpy(), IMAGE > 0)
    flat = pf.predict(lambda x: torch.cat([0 * x] * 3, dim=1), IMAGE, **SIZES)
    assert flat.shape == (1, 11, 9, 7)
    assert flat.eq(0).all()


def test_labels_of_one_channel_or_of_sigmoids_are_masks() -> None:
    mask = pf.predict(nn.Identity(), IMAGE, overlap_mode="crop", **SIZES)
    np.testing.assert_array_equal(mask.numpy(), (IMAGE > 0).astype(np.uint8), strict=True)
    ready = pf.predict(nn.Identity(), IMAGE, overlap_mode="crop", activation="none", **SIZES)
    np.testing.assert_array_equal(ready.numpy(), IMAGE > 0.5)
    regions = pf.predict(three_regions, IMAGE, overlap_mode="crop", activation="sigmoid", **SIZES)
    np.testing.assert_array_equal(regions.numpy(), np.concatenate([IMAGE > 0, IMAGE < 0, IMAGE > 0.5]).astype(np.uint8), strict=True)


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_labels_take_the_smallest_dtype_that_holds_them(classes: int, dtype: torch.dtype) -> None:
    volume = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2) * (classes - 1) / 7

    def nearest(x: torch.Tensor) -> torch.Tensor:
        return -(x - torch.arange(classes).view(1, -1, 1, 1, 1)).abs()

    labels = pf.predict(nearest, volume, patch_size=2, progress=False)
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels.numpy(), np.rint(volume))


def test_probabilities_are_the_softmax_or_the_sigmoid_of_the_stitched_logits() -> None:
    arguments = {"output": "probabilities", "overlap_mode": "crop", **SIZES}
    expected = 1 / (1 + np.exp(-IMAGE))
    np.testing.assert_allclose(pf.predict(nn.Identity(), IMAGE, **arguments), expected, atol=1e-6)
    np.testing.assert_allclose(pf.predict(two_classes, IMAGE, **arguments), np.concatenate([1 - expected, expected]), atol=1e-6)
    with pytest.raises(ArgumentError, match="the softmax of one channel is 1 everywhere"):
        pf.predict(nn.Identity(), IMAGE, activation="softmax", **arguments)
    np.testing.assert_allclose(pf.predict(two_classes, IMAGE, activation="sigmoid", **arguments)[0], np.full_like(IMAGE[0], 0.5))
    np.testing.assert_array_equal(pf.predict(nn.Identity(), IMAGE, activation="none", **arguments), IMAGE)


def test_a_function_gets_the_stitched_logits(monkeypatch) -> None:
    monkeypatch.setattr("patchflow.inference.ring.PIECE_BYTES", 9 * 7 * 4 * 4)  # at most four slices
    seen = []

    def halve(slab: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(slab.shape))
        return torch.cat([slab / 2, slab], dim=0).half()

    result = pf.predict(nn.Identity(), IMAGE, output=halve, overlap_mode="crop", **SIZES)
    assert [shape[1] for shape in seen] == [3, 2, 1, 4, 1]  # windows begin at slices 0, 3 and 5, and a ring of six ends before slice 6
    assert torch.equal(result, torch.from_numpy(np.concatenate([IMAGE / 2, IMAGE])).half())


def test_images_are_concatenated_in_the_order_asked() -> None:
    logits = pf.predict(nn.Identity(), make_subject(), images=("mask", "image"), output="logits", overlap_mode="crop", **SIZES)
    np.testing.assert_array_equal(logits.numpy(), np.concatenate([MASK, IMAGE]).astype(np.float32))


def test_integers_of_a_model_are_labels_already() -> None:
    labels = pf.predict(lambda x: x.mul(3).to(torch.int16), IMAGE, overlap_mode="crop", **SIZES)
    np.testing.assert_array_equal(labels.numpy(), (IMAGE * 3).astype(np.int16), strict=True)
    with pytest.raises(InferenceError, match="int16, which has no probabilities"):
        pf.predict(lambda x: x.short(), IMAGE, overlap_mode="crop", output="probabilities", **SIZES)


def test_half_precision_models_are_stitched_in_float32() -> None:
    logits = pf.predict(lambda x: x.to(torch.bfloat16), IMAGE, output="logits", overlap_mode="average", **SIZES)
    rounded = torch.from_numpy(IMAGE).to(torch.bfloat16).float()
    torch.testing.assert_close(logits, rounded, rtol=0, atol=1e-6)


def test_windows_overlap_by_half_unless_told_otherwise() -> None:
    starts = []

    def spy(x: torch.Tensor) -> torch.Tensor:
        starts.extend(x[:, 0, 0, 0, 0].tolist())
        return x

    ramp = np.arange(12, dtype=np.float32).reshape(1, 12, 1, 1)
    pf.predict(spy, ramp, patch_size=(4, 1, 1), progress=False)
    assert starts == [0, 2, 4, 6, 8]
    starts.clear()
    pf.predict(spy, ramp, patch_size=(4, 1, 1), patch_overlap=0, progress=False, batch_size=2)
    assert starts == [0, 4, 8]


class _Modes(nn.Module):
    """Records in which mode it runs; its normalisation layer would shift the image in training mode."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.norm, self.frozen, self.fails = nn.BatchNorm3d(1), nn.Dropout(0.9), fails
        self.train()
        self.frozen.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not any(module.training for module in self.modules())
        assert not torch.is_grad_enabled()
        if self.fails:
            raise RuntimeError("out of memory")
        return self.frozen(self.norm(x)) * (1 + 1e-5) ** 0.5


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_predicts_in_evaluation_mode_and_each_module_gets_its_own_mode_back(fails: bool) -> None:
    model = _Modes(fails)
    if fails:
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            pf.predict(model, make_subject(), batch_size=2, **SIZES)
        assert caught.value.__notes__ == ['while predicting subject "p7", window [0:6, 0:5, 0:8] and 1 more of its batch']
    else:
        logits = pf.predict(model, make_subject(), output="logits", **SIZES)
        np.testing.assert_allclose(logits.numpy(), IMAGE, atol=1e-5)
        assert not logits.is_inference()
    assert model.training
    assert model.norm.training
    assert not model.frozen.training
    assert model.norm.num_batches_tracked == 0


def test_windows_go_to_the_model_s_device() -> None:
    seen = []
    model = nn.Conv3d(1, 1, 1).to("meta")
    model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].device))
    with pytest.raises((InferenceError, NotImplementedError)):  # nothing comes back from the meta device
        pf.predict(model, IMAGE, **SIZES)
    assert seen == [torch.device("meta")]


def test_several_outputs_of_other_channel_counts(tmp_path) -> None:
    def model(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tissue": two_classes(x), "depth": 2 * x}

    settings = {"output": {"tissue": "labels", "depth": "logits"}, "overlap_mode": "crop", **SIZES}
    results = pf.predict(model, make_subject(), path={"depth": tmp_path / "depth.nii"}, **settings)
    assert list(results) == ["tissue", "depth"]
    np.testing.assert_array_equal(results["tissue"].numpy(), (IMAGE > 0).astype(np.uint8), strict=True)
    assert results["depth"] == tmp_path / "depth.nii"
    np.testing.assert_array_equal(nib.load(tmp_path / "depth.nii").get_fdata(dtype=np.float32), 2 * IMAGE[0])
    unnamed = pf.predict(lambda x: (x, two_classes(x)), IMAGE, output="logits", overlap_mode="crop", **SIZES)
    assert {name: value.shape[0] for name, value in unnamed.items()} == {"0": 1, "1": 2}


def test_an_entry_of_a_cache_is_predicted_as_its_preprocessed_subject(tmp_path) -> None:
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize()])
    entry = pf.build_cache([make_subject()], tmp_path / "cache", preprocess=pipeline, progress=False)[0]
    file = pf.predict(nn.Identity(), entry, output="logits", overlap_mode="crop", path=tmp_path / "out.nii.gz", **SIZES)
    np.testing.assert_array_equal(np.asarray(nib.load(file).dataobj), pipeline(make_subject())["image"].data[0])
    np.testing.assert_allclose(nib.load(file).affine, AFFINE)


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_the_file_overlays_the_source(tmp_path, name: str) -> None:
    labels = pf.predict(two_classes, make_subject(), **SIZES)
    assert pf.predict(two_classes, make_subject(), path=tmp_path / name, **SIZES) == tmp_path / name
    written = nib.load(tmp_path / name)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels[0].numpy())
    np.testing.assert_allclose(written.affine, AFFINE)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name]


def test_channels_are_written_as_the_fourth_axis(tmp_path) -> None:
    probabilities = pf.predict(two_classes, make_subject(), output="probabilities", **SIZES)
    pf.predict(two_classes, make_subject(), output="probabilities", path=str(tmp_path / "p.nii"), **SIZES)
    written = nib.load(tmp_path / "p.nii").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(written, probabilities.numpy().transpose(1, 2, 3, 0))


def test_a_model_may_return_the_same_memory_each_time() -> None:
    room = torch.empty(1, 1, 6, 5, 8)

    def model(x: torch.Tensor) -> torch.Tensor:
        return room.copy_(x)

    logits = pf.predict(model, make_subject(), output="logits", overlap_mode="crop", **SIZES)
    np.testing.assert_array_equal(logits.numpy(), IMAGE)


class _Turns:
    """Returns something else the second time."""

    def __init__(self, second) -> None:
        self.second, self.calls = second, 0

    def __call__(self, x: torch.Tensor):
        self.calls += 1
        return x if self.calls == 1 else self.second(x)


SECOND = r'subject "p7", window \[0:6, 2:7, 0:8\]'


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: None, ".*must be a tensor .*not None"),
        (lambda x: x.numpy(), ".*not a ndarray"),
        (lambda x: x[..., ::2], r".*not \(1, 1, 6, 5, 4\)"),
        (lambda x: two_classes(x), ".*has 2 channels"),
        (lambda x: x / 0, ".*NaN or infinite"),
        (lambda x: [x, x], '.*the model returned "0", "1", but one tensor before'),
        (lambda x: {}, ".*the model returned an empty dict"),
        (lambda x: x.long(), ".*int64"),
    ],
)
def test_what_a_model_must_not_return(tmp_path, second, message: str) -> None:
    with pytest.raises(InferenceError, match=SECOND + message):
        pf.predict(_Turns(second), make_subject(), path=tmp_path / "out.nii.gz", **SIZES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output": "classes"}, ArgumentError, 'output must be "labels"'),
        ({"activation": "relu"}, ArgumentError, "activation must be one of auto, softmax, sigmoid, none"),
        ({"overlap_mode": "mean"}, ArgumentError, "overlap_mode must be one of"),
        ({"batch_size": 0}, ArgumentError, "batch_size must be an int of at least 1"),
        ({"patch_overlap": 8}, ArgumentError, "smaller than patch_size"),
        ({"images": "image"}, ArgumentError, "images must be a list"),
        ({"images": ["image", "image"]}, ArgumentError, "each once"),
        ({"images": ["t2"]}, UnknownNameError, "t2"),
        ({"path": "out.nrrd"}, ArgumentError, r"out\.nrrd: volumes are written as NIfTI or HDF5"),
        ({"path": {"a": "x.nii", "b": "./x.nii"}}, ArgumentError, "one file for two outputs"),
        ({"path": ["x.nii"]}, ArgumentError, "path must be a file"),
        ({"label_names": ["a"]}, ArgumentError, "label_names must give each label value its name"),
        ({"scale": 0.5, "patch_size": 6, "views": [pf.augment.RandomFlip()]}, ArgumentError, "leave scale at 1"),
        ({"path": "missing/out.nii"}, ArgumentError, "there is no folder missing"),
    ],
)
def test_bad_arguments_are_refused_before_the_model_is_called(arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        pf.predict(lambda x: pytest.fail("called"), make_subject(), **(SIZES | arguments))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (two_classes, {"output": {"a": "logits"}}, 'output names "a", but the model returns one tensor'),
        (lambda x: {"a": x, "b": x}, {"output": {"a": "logits"}}, 'output names "a", but the model returns "a", "b"'),
        (lambda x: {"a": x}, {"path": {"b": "b.nii"}}, 'path names "b", but the model returns "a"'),
        (lambda x: {"a": x}, {"path": "b.nii"}, 'several outputs, "a": give a path for each'),
    ],
)
def test_names_of_outputs_are_checked_after_the_first_window(model, arguments, message: str) -> None:
    spy = _Turns(lambda x: pytest.fail("called twice"))
    with pytest.raises(ArgumentError, match=message):
        pf.predict(lambda x: model(spy(x)), make_subject(), **SIZES, **arguments)


@pytest.mark.parametrize("output", [lambda slab: slab[0], lambda slab: None, lambda slab: slab[:, ::2]])
def test_a_function_must_return_a_slab(output) -> None:
    with pytest.raises(InferenceError, match='subject "p7": the output function must return a tensor'):
        pf.predict(nn.Identity(), make_subject(), output=output, **SIZES)


def test_images_of_other_names_are_told_how_to_name_them(tmp_path) -> None:
    subject = pf.Subject("p7", t1=pf.ScalarImage(IMAGE), mask=pf.LabelMap(MASK))
    entry = pf.build_cache([subject], tmp_path / "cache", progress=False)[0]
    for source in (subject, entry):
        message = r"subject 'p7' has no image 'image': it has 't1', 'mask'; name those that the model takes, as in images=\('t1',\)$"
        with pytest.raises(UnknownNameError, match=message):
            pf.predict(nn.Identity(), source, **SIZES)
    with pytest.raises(UnknownNameError, match=r"has no image 't2'.*images=\('t1',\)"):
        pf.predict_subjects(nn.Identity(), [subject], tmp_path / "out", images=("t1", "t2"), **SIZES)
    with pytest.raises(UnknownNameError, match=r"as in images=\('mask',\)$"):
        pf.predict(nn.Identity(), pf.Subject("p7", mask=pf.LabelMap(MASK)), **SIZES)
