import pytest
from small_subjects import make_subjects

import patchflow as pf


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory):
    """A cache of the subjects of `make_subjects`, z-scored."""
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize()])
    return pf.build_cache(make_subjects(), tmp_path_factory.mktemp("cache"), preprocess=pipeline, progress=False)


@pytest.fixture
def small_sampler():
    return pf.LabelSampler(patch_size=(8, 6, 10), label="label", probabilities={0: 1, 1: 1, 2: 2})
