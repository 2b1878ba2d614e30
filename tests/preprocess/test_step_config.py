"""Steps from text and from plain values."""

import pytest

from patchflow.errors import ArgumentError
from patchflow.preprocess import Clamp, Resample, Window, ZNormalize
from patchflow.preprocess.config import step_from


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ("ZNormalize", ZNormalize()),
        ({"ZNormalize": None}, ZNormalize()),
        ("Window(center=40, width=400)", Window(center=40, width=400)),
        ({"Window": {"center": 40, "width": 400}}, Window(center=40, width=400)),
        ({"Resample": {"spacing": [1, 1, 2.5], "thick_ratio": 3}}, Resample(spacing=(1, 1, 2.5), thick_ratio=3)),
        ("Clamp(low=-5, high=None)", Clamp(low=-5, high=None)),
    ],
)
def test_a_step_from_plain_values_is_the_one_meant(given, step):
    assert step_from(given).to_dict() == step.to_dict()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Pipeline", "no preprocessing step"),
        ("Window(40, 400)", "no preprocessing step"),
        ("Window(center=40, width=", "preprocessing step"),
        ({"Window": {"centre": 40, "width": 400}}, "centre"),
        ({"Window": [40, 400]}, "must be a mapping"),
        ({"Window": {}, "ZNormalize": {}}, "its name, or its name"),
        ({"Resample": {"spacing": [1, 1]}}, "spacing must be a number or three"),
        (7, "no preprocessing step"),
    ],
)
def test_what_is_no_step_is_refused(given, message):
    with pytest.raises(ArgumentError, match=message):
        step_from(given)
