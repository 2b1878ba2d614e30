import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchflow.kernels.noise import add_normal, make_rician, philox, plain_normal, plain_philox, plain_rician

KEY = 0x0123456789ABCDEF


def noise(size, start=(0, 0, 0), key=KEY, channels=1):
    out = np.zeros((channels, *size), np.float32)
    add_normal(out, start, key, 0.0, 1.0)
    return out


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that the authors of Philox publish for philox4x32 with ten rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_generator_gives_the_published_words(counter, key, words):
    c, k, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    plain = plain_philox(*(torch.tensor(word) for word in c), k[0] | k[1] << 32)
    assert [int(word) for word in plain] == expected
    fast = philox.py_func(*(np.uint64(word) for word in (*c, *k)))
    assert [int(word) for word in fast] == expected


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(-40, 40)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 2**64 - 1))
def test_noise_of_a_patch_is_the_crop_of_the_noise_of_the_volume(start, size, key):
    full = noise((19, 21, 23), (start[0] - 5, start[1] - 5, start[2] - 5), key, channels=2)
    got = noise(size, start, key, channels=2)
    np.testing.assert_array_equal(got, full[(slice(None), *(slice(5, 5 + n) for n in size))])


def test_noise_is_standard_normal():
    values = noise((96, 96, 96), (-7, 1000, -50)).ravel().astype(np.float64)
    n = values.size
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4 / np.sqrt(n)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((values**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((values**4).mean() - 3) < 4 * np.sqrt(96 / n)
    for limit in (3.0, 4.0):  # the tails, where a poor transform of few bits shows
        expected = n * 2 * stats.norm.sf(limit)
        assert abs((abs(values) > limit).sum() - expected) < 5 * np.sqrt(expected)


def test_no_correlation_between_neighbours_channels_or_keys():
    a = noise((64, 64, 64), channels=2).astype(np.float64)
    bound = 4.5 / np.sqrt(64**3)
    for axis in (1, 2, 3):
        for lag in (1, 2, 3, 4):
            head, tail = np.delete(a, range(lag), axis)[0], np.delete(a, range(64 - lag, 64), axis)[0]
            assert abs((head * tail).mean()) < bound * 1.05
            assert (
                abs((head**2 * tail**2).mean() - 1) < 4.5 * np.sqrt(8) / np.sqrt(64**3) * 1.05
            )  # both members of a Box-Muller pair share a radius
    assert abs((a[0] * a[1]).mean()) < bound
    for bit in (0, 31, 32, 63):
        other = noise((64, 64, 64), key=KEY ^ 1 << bit)[0].astype(np.float64)
        assert abs((a[0] * other).mean()) < bound


def test_every_voxel_of_a_block_of_four_has_the_same_distribution():
    values = noise((64, 64, 64))[0]
    for offset in range(4):
        assert stats.kstest(values[..., offset::4].ravel(), "norm").pvalue > 1e-3


def test_mean_std_and_what_was_there_add_up():
    patch = np.full((1, 4, 4, 4), 100.0, np.float32)
    add_normal(patch, (1, 2, 3), 9, 2.0, 0.5)
    np.testing.assert_allclose(patch, 102 + 0.5 * noise((4, 4, 4), (1, 2, 3), 9), atol=1e-5)


boxes = st.tuples(*[st.integers(-1000, 1000)] * 3), st.tuples(*[st.integers(1, 11)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), *boxes, st.integers(1, 3), st.floats(-3, 3), st.floats(0, 2))
def test_rician_noise_agrees_with_its_twin(key, start, size, channels, low, std):
    values = np.random.default_rng(sum(size)).normal(size=(channels, *size)).astype(np.float32)
    fast = values.copy()
    make_rician(fast, start, key, low, std)
    plain = plain_rician(torch.from_numpy(values), start, key, low, std)
    np.testing.assert_allclose(fast, plain.numpy(), rtol=0, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), *boxes, st.integers(1, 3))
def test_normal_noise_agrees_with_its_twin(key, start, size, channels):
    fast = np.zeros((channels, *size), np.float32)
    add_normal(fast, start, key, 0.0, 1.0)
    np.testing.assert_allclose(fast, plain_normal((channels, *size), start, key).numpy(), rtol=0, atol=2e-6)


def test_the_parts_of_rician_noise_are_independent_and_the_real_one_is_the_gaussian():
    """Far above 0 only the real part shows; at 0 both do, and the square of the other one is what is left."""
    real, far = noise((48, 48, 48)).astype(np.float64), np.full((1, 48, 48, 48), 1000, np.float32)
    make_rician(far, (0, 0, 0), KEY, 0.0, 1.0)
    np.testing.assert_allclose(far - 1000, real, atol=0.02)
    near = np.zeros((1, 48, 48, 48), np.float32)
    make_rician(near, (0, 0, 0), KEY, 0.0, 1.0)
    other = near.astype(np.float64) ** 2 - real**2
    assert other.min() > -1e-4
    assert abs(other.mean() - 1) < 4 * np.sqrt(2 / 48**3)
    assert abs(np.corrcoef(other.ravel(), real.ravel())[0, 1]) < 4 / np.sqrt(48**3)
    assert abs(np.corrcoef(other.ravel(), real.ravel() ** 2)[0, 1]) < 4 / np.sqrt(48**3)
