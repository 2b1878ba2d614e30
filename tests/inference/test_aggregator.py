import numpy as np
import pytest
import torch

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError

VOLUME = np.zeros((1, 6, 4, 4), np.float32)


def make_grid(overlap=(2, 0, 0)) -> pf.GridSampler:
    return pf.GridSampler(VOLUME, (4, 4, 4), overlap)  # windows at I = 0 and 2


def constant(*values: float, channels: int = 1) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, channels, 4, 4, 4).clone()


def along_i(aggregator: pf.GridAggregator) -> list[float]:
    output = aggregator.get_output_tensor()
    assert output.shape == (1, 6, 4, 4)
    assert (output == output[:, :, :1, :1]).all()
    return output[0, :, 0, 0].tolist()


def test_crop_takes_the_nearer_window_and_average_the_mean() -> None:
    for mode, expected in [("crop", [1, 1, 1, 5, 5, 5]), ("average", [1, 1, 3, 3, 5, 5])]:
        aggregator = pf.GridAggregator(make_grid(), mode)
        aggregator.add_batch(constant(1, 5), make_grid().locations)
        assert along_i(aggregator) == expected


@pytest.mark.parametrize("mode", ["hann", "gaussian"])
def test_windows_weigh_their_middle_more(mode: str) -> None:
    aggregator = pf.GridAggregator(make_grid(), mode)
    aggregator.add_batch(constant(1, 5), make_grid().locations)
    x = np.arange(4)
    window = np.sin(np.pi * (x + 1) / 5) ** 2 if mode == "hann" else np.exp(-0.5 * ((x - 1.5) / 0.5) ** 2)
    left, right = window[2:], window[:2]
    np.testing.assert_allclose(along_i(aggregator), [1, 1, *((left + 5 * right) / (left + right)), 5, 5], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", ["crop", "average"])
def test_other_floats_are_summed_as_float32(dtype: torch.dtype, mode: str) -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, mode)
    predictions = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    aggregator.add_batch(predictions, torch.from_numpy(grid.locations))
    output = aggregator.get_output_tensor()
    assert output.dtype == torch.float32
    assert torch.equal(output[:, :2], predictions[0, :, :2].float())
    if mode == "average":
        torch.testing.assert_close(output[:, 2:4], (predictions[0, :, 2:].double() + predictions[1, :, :2].double()).div(2).float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_crop_keeps_integers(dtype: torch.dtype) -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "crop")
    big = torch.iinfo(dtype).max if dtype != torch.bool else 1
    aggregator.add_batch(constant(0, 1).to(dtype) * torch.tensor(big, dtype=dtype), grid.locations)
    output = aggregator.get_output_tensor()
    assert output.dtype == dtype
    assert output[0, 5, 0, 0].item() == big


def test_predictions_need_no_gradient_nor_contiguous_memory() -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "average")
    predictions = torch.randn(2, 4, 4, 4, 3, requires_grad=True).movedim(-1, 1)
    aggregator.add_batch(predictions, grid.locations)
    assert torch.equal(aggregator.get_output_tensor()[:, 4:], predictions[1, :, 2:])


def test_windows_that_are_missing_are_counted_and_the_first_named() -> None:
    grid = pf.GridSampler(pf.Subject("p7", image=pf.ScalarImage(VOLUME)), (2, 4, 4))
    aggregator = pf.GridAggregator(grid)
    with pytest.raises(InferenceError, match=r'3 of 3 windows .* subject "p7", window \[0:2, 0:4, 0:4\]'):
        aggregator.get_output_tensor()
    aggregator.add_batch(torch.zeros(1, 1, 2, 4, 4), grid.locations[:1])
    with pytest.raises(InferenceError, match=r'2 of 3 windows .* subject "p7", window \[2:4, 0:4, 0:4\]'):
        aggregator.get_output_tensor()


def _nan(value: float) -> torch.Tensor:
    predictions = constant(1, 5)
    predictions[1, 0, 3, 2, 1] = value
    return predictions


WINDOW = r'subject "array", window \[2:6, 0:4, 0:4\]'
FIRST = r'subject "array", window \[0:4, 0:4, 0:4\]'


@pytest.mark.parametrize(
    ("predictions", "locations", "message"),
    [
        (_nan(float("nan")), [[0, 0, 0, 4, 4, 4], [2, 0, 0, 6, 4, 4]], WINDOW + ": 1 of 64 predicted values are NaN or infinite"),
        (_nan(float("-inf")), [[0, 0, 0, 4, 4, 4], [2, 0, 0, 6, 4, 4]], WINDOW),
        (
            constant(1, 5).double() * torch.tensor([1, 1e39], dtype=torch.float64).view(2, 1, 1, 1, 1),
            [[0, 0, 0, 4, 4, 4], [2, 0, 0, 6, 4, 4]],
            WINDOW + ": 64 of 64",
        ),
        (constant(1), [[1, 0, 0, 5, 4, 4]], r"\[1:5, 0:4, 0:4\] is no window of this grid"),
        (constant(1), [[0, 0, 0, 4, 4, 3]], r"\[0:4, 0:4, 0:3\] is no window of this grid"),
        (constant(1, 5), [[2, 0, 0, 6, 4, 4]] * 2, WINDOW + ": a prediction of this window was added before"),
        (constant(1, 5), [[0, 0, 0, 4, 4, 4]], FIRST + r".*\(1, C, 4, 4, 4\).*not \(2, 1, 4, 4, 4\)"),
        (constant(1)[..., :2], [[0, 0, 0, 4, 4, 4]], FIRST + r".*not \(1, 1, 4, 4, 2\)"),
        (constant(1)[0], [[0, 0, 0, 4, 4, 4]], FIRST + r".*not \(1, 4, 4, 4\)"),
        (constant(1)[:, :0], [[0, 0, 0, 4, 4, 4]], FIRST + r".*not \(1, 0, 4, 4, 4\)"),
        (constant(1).int(), [[0, 0, 0, 4, 4, 4]], FIRST + ".*int32 cannot be weighed: .*crop"),
        (constant(1).to(torch.complex64), [[0, 0, 0, 4, 4, 4]], FIRST + ".*real numbers"),
        (constant(1).numpy(), [[0, 0, 0, 4, 4, 4]], FIRST + ".*must be a tensor .*not a ndarray"),
        (None, [[0, 0, 0, 4, 4, 4]], FIRST + ".*not None"),
        (constant(1), [0, 0, 0, 4, 4, 4], r"locations must be integers \(B, 6\).*shape \(6,\)"),
        (constant(1), [[0.0, 0, 0, 4, 4, 4]], "locations must be integers"),
    ],
)
def test_what_cannot_be_stitched_is_refused_and_changes_nothing(predictions, locations, message: str) -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "average")
    with pytest.raises(InferenceError, match=message):
        aggregator.add_batch(predictions, np.array(locations))
    aggregator.add_batch(constant(1, 5), grid.locations)
    assert along_i(aggregator) == [1, 1, 3, 3, 5, 5]


def test_a_window_added_in_an_earlier_batch_is_refused() -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "average")
    aggregator.add_batch(constant(1), grid.locations[:1])
    with pytest.raises(InferenceError, match=FIRST + ": a prediction of this window was added before"):
        aggregator.add_batch(constant(1), grid.locations[:1])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (constant(5, channels=2), WINDOW + r": the prediction has 2 channels, but that of window \[0:4, 0:4, 0:4\] has 1"),
        (constant(5).int(), WINDOW + r": the prediction is torch.int32, but that of window \[0:4, 0:4, 0:4\] is torch.float32"),
    ],
)
def test_predictions_must_stay_alike(second: torch.Tensor, message: str) -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "crop")
    aggregator.add_batch(constant(1), grid.locations[:1])
    with pytest.raises(InferenceError, match=message):
        aggregator.add_batch(second, grid.locations[1:])


def test_an_empty_batch_adds_nothing() -> None:
    grid = make_grid()
    aggregator = pf.GridAggregator(grid, "average")
    aggregator.add_batch(torch.zeros(0, 1, 4, 4, 4), grid.locations[:0])
    aggregator.add_batch(constant(1, 5), grid.locations)
    assert along_i(aggregator) == [1, 1, 3, 3, 5, 5]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ArgumentError, match="overlap_mode must be one of"):
        pf.GridAggregator(make_grid(), "mean")
