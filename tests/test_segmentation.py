"""The network and the loss to begin with."""

import numpy as np
import pytest
import torch
from torch import nn

from patchflow.errors import ArgumentError
from patchflow.segmentation import Segmentation, UNet, one_cycle


def test_a_network_of_slices_sees_no_neighbours_along_its_flat_axis():
    torch.manual_seed(0)
    network = UNet(outputs=2, width=2, flat_axis=1).eval()
    image = torch.randn(1, 1, 8, 5, 8)
    with torch.no_grad():
        whole = network(image)
        slices = torch.cat([network(image[:, :, :, j : j + 1]) for j in range(5)], dim=3)
    torch.testing.assert_close(whole, slices)
    with pytest.raises(ArgumentError, match="flat_axis must be 0, 1, 2 or None, not 3"):
        UNet(flat_axis=3)


def test_the_loss_is_cross_entropy_plus_soft_dice_of_voxels_that_count():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(2, 3, 4, 4, 4)), rng.integers(0, 3, (2, 4, 4, 4))
    label[0, :2] = 9
    module = Segmentation(nn.Identity(), ignore_label=9)
    batch = {"image": torch.from_numpy(logits), "label": torch.from_numpy(label)[:, None]}
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counts = label != 9
    p = np.moveaxis(probabilities, 1, -1)[counts]  # (voxels, classes)
    one_hot = np.eye(3)[label[counts]]
    entropy = -np.log((p * one_hot).sum(1)).mean()
    soft_dice = (2 * (p * one_hot).sum(0) + 1) / (p.sum(0) + one_hot.sum(0) + 1)
    assert float(module._loss(batch)) == pytest.approx(entropy + 1 - soft_dice.mean(), rel=1e-9)


def test_the_learning_rate_goes_up_and_down_once():
    shares = [one_cycle(step, 100) for step in range(101)]
    assert shares[0] == pytest.approx(0.04)
    assert shares[30] == pytest.approx(1)
    assert shares[100] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(shares[:31]) > 0)
    assert np.all(np.diff(shares[30:]) < 0)
    assert one_cycle(250, 100) == pytest.approx(0, abs=1e-12)
    assert 0 < one_cycle(0, 1) <= 1
