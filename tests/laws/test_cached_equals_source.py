"""Law 2: reading any region of an entry equals preprocessing the source and slicing, bit for bit, in every layout."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf

DTYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64"]
STEPS = {
    "none": [],
    "z-score": [pf.preprocess.ZNormalize()],
    "z-score of each channel": [pf.preprocess.ZNormalize(per_channel=True)],
    "rescale": [pf.preprocess.Rescale(out=(-1, 1), percentiles=(1, 99))],
    "window": [pf.preprocess.Window(center=40, width=300, out=(0, 1))],
    "window then z-score": [pf.preprocess.Window(center=20, width=500), pf.preprocess.ZNormalize()],
    "histogram": [pf.preprocess.HistogramStandardize((0, 30, 50, 100), (1, 25, 75, 99))],
    "window, histogram, clamp, z-score": [
        pf.preprocess.Window(center=20, width=800),
        pf.preprocess.HistogramStandardize((-1, 0, 3), (0, 50, 100)),
        pf.preprocess.Clamp(-0.5, 2),
        pf.preprocess.ZNormalize(),
    ],
}


@st.composite
def cases(draw):
    shape = draw(st.tuples(*[st.integers(1, 70)] * 2, st.integers(1, 60)).filter(lambda s: s[0] * s[1] * s[2] > 3))
    locations = [
        pf.PatchLocation(tuple(draw(st.integers(-9, n + 3)) for n in shape), tuple(draw(st.integers(1, n + 9)) for n in shape))
        for _ in range(4)
    ]
    return (
        shape,
        draw(st.integers(1, 3)),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(sorted(STEPS))),
        locations,
        draw(st.integers(0, 99)),
    )


def subject_of(shape, channels, dtype, seed):
    rng = np.random.default_rng(seed)
    voxels = rng.normal(100, 80, (channels, *shape)).clip(0 if dtype.startswith("u") else -400, 250).astype(dtype)
    voxels.flat[:4] = [0, 1, 2, 3]  # never constant
    voxels[:, : shape[0] // 2, : shape[1] // 2] = 7  # chunks of one value
    labels = rng.integers(-1, 3, shape).astype(np.int16)
    return pf.Subject("s", image=pf.ScalarImage(voxels), label=pf.LabelMap(labels))


def sliced(values, location, fill):
    """The region of a whole volume, padded: what `read` should give."""
    lows = [max(-a, 0) for a in location.start]
    highs = [max(b - n, 0) for b, n in zip(location.stop, values.shape[1:], strict=True)]
    padded = np.pad(values, [(0, 0), *zip(lows, highs, strict=True)], constant_values=fill)
    return padded[(slice(None), *(slice(a + low, a + low + n) for a, low, n in zip(location.start, lows, location.size, strict=True)))]


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_cached_equals_source(layout, case):
    shape, channels, dtype, steps, locations, seed = case
    subject = subject_of(shape, channels, dtype, seed)
    pipeline = pf.Pipeline(STEPS[steps])
    source = pipeline(subject)
    with tempfile.TemporaryDirectory() as folder:
        entry = pf.build_cache([subject], folder, preprocess=pipeline, layout=layout, progress=False)[0]
        for name, fill in (("image", -3.5), ("label", 5)):
            values = source[name].data
            for location in [*locations, pf.PatchLocation((0, 0, 0), shape)]:
                expected = sliced(values, location, fill)
                found = entry.read(name, location, fill=fill)
                assert found.dtype == expected.dtype == entry.images[name].dtype
                assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
                flipped = np.empty(found.shape[:1] + tuple(location.size), found.dtype)
                entry.read(name, location, fill=fill, out=flipped[:, ::-1, :, ::-1])
                np.testing.assert_array_equal(flipped[:, ::-1, :, ::-1], expected)


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_values_that_equal_one_another_only_by_number_are_kept(tmp_path, layout):
    """-0.0 == 0.0, but they are other bits; a chunk of both is no chunk of one value."""
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[1] = -0.0
    entry = pf.build_cache([pf.Subject("s", image=pf.ScalarImage(voxels))], tmp_path / "c", layout=layout, progress=False)[0]
    assert entry.region("image", (0, 0, 0), (3, 4, 5)).tobytes() == voxels.tobytes()
