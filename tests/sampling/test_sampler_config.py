"""Samplers from plain values are those that Python makes."""

import pytest

import patchflow as pf
from patchflow.errors import ArgumentError
from patchflow.sampling.config import sampler_from


@pytest.mark.parametrize(
    ("config", "made"),
    [
        ("UniformSampler", pf.UniformSampler(8)),
        ({"UniformSampler": None}, pf.UniformSampler(8)),
        ({"WeightedSampler": {"weights": "map"}}, pf.WeightedSampler(8, weights="map")),
        (
            {"LabelSampler": {"label": "seg", "probabilities": {0: 1, 2: 3}}},
            pf.LabelSampler(8, label="seg", probabilities={0: 1, 2: 3}),
        ),
        (
            {"MixedSampler": {"parts": [[0.67, "UniformSampler"], [0.33, {"LabelSampler": {"label": "seg"}}]]}},
            pf.MixedSampler([(0.67, pf.UniformSampler(8)), (0.33, pf.LabelSampler(8, label="seg"))]),
        ),
    ],
)
def test_a_sampler_from_plain_values_is_the_one_meant(config, made):
    sampler = sampler_from(config, 8)
    assert type(sampler) is type(made)
    assert sampler.to_dict() == made.to_dict()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("GridSampler", "no sampler 'GridSampler'"),
        (["UniformSampler"], "no sampler"),
        ({"UniformSampler": {}, "LabelSampler": {}}, "no sampler"),
        ({"LabelSampler": {"lable": "x"}}, "LabelSampler cannot be made of .*lable"),
        ({"LabelSampler": ["label"]}, "must be a mapping"),
        ({"MixedSampler": {}}, "MixedSampler cannot be made of .*parts"),
        ({"MixedSampler": {"parts": [0.5]}}, "MixedSampler cannot be made"),
        ({"LabelSampler": {"probabilities": {0: -1}}}, "weight of class 0"),
    ],
)
def test_what_is_no_sampler_is_refused(config, message):
    with pytest.raises(ArgumentError, match=message):
        sampler_from(config, 8)
