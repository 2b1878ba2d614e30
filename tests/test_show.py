"""Sheets of patches: what is drawn is what the queue makes, and no text lies over another."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import patchflow as pf
from patchflow import seeding
from patchflow.errors import ArgumentError, PatchflowError, UnknownNameError
from patchflow.show import Shown, chosen_names, drawn_patches, foreground_sampler, sheet
from patchflow.show.panels import directions, outline, planes_of
from patchflow.show.patches import grey_window
from patchflow.show.words import told

SIZE = (8, 6, 10)


def shift(sample, rng):
    return {**sample, "image": sample["image"] + float(rng.random())}


def make_queue(cache, transform=None, size=SIZE, **more):
    sampler = pf.UniformSampler(size)
    return pf.Queue(cache, sampler, samples_per_volume=3, transform=transform, **{"shuffle": False, "seed": 4, **more})


def recipe(**more):
    return pf.Recipe([pf.augment.RandomFlip(axes=(0, 1)), pf.augment.RandomNoise(std=(0.1, 0.2), p=0.7), shift], **more)


def make_cache(folder, shape=(20, 21, 22), channels=1, classes=2, affine=None, label=True, name="s0"):
    rng = seeding.generator(1)
    image = rng.normal(0, 100, (channels, *shape)).astype(np.int16)
    images = {"image": pf.ScalarImage(image, affine=affine)}
    if label:
        images["label"] = pf.LabelMap(rng.integers(0, classes + 1, shape).astype(np.uint8), affine=affine)
    return pf.build_cache([pf.Subject(name, **images)], folder, progress=False)


# What is drawn


def test_patches_are_those_of_the_queue_spread_over_the_epoch(small_cache):
    queue = make_queue(small_cache, recipe(fill={"image": -3}))
    shown = drawn_patches(queue, 6, epoch=2)
    assert [patch.label for patch in shown] == [f"patch {index}" for index in (0, 2, 4, 6, 8, 10)]
    assert [patch.entry.name for patch in shown] == ["s0", "s0", "s1", "s2", "s2", "s3"]
    queue.set_epoch(2)
    batches = list(queue)
    for patch, index in zip(shown, (0, 2, 4, 6, 8, 10), strict=True):
        batch, row = batches[index // 2], index % 2
        for name in ("image", "label"):
            assert patch.augmented[name].equal(batch[name][row])
            fill = -3 if name == "image" else 0
            assert patch.plain[name].numpy().tolist() == patch.entry.read(name, patch.location, fill=fill).tolist()
        assert patch.parameters == queue.replay(2, index)["parameters"]


def test_what_lies_outside_is_filled_as_the_recipe_says(small_cache):
    queue = make_queue(small_cache, pf.Recipe([pf.augment.RandomNoise(std=(1, 1))], fill={"image": -7.0}), size=(20, 20, 20))
    patch = drawn_patches(queue, 1)[0]
    inside = patch.location.overlap(patch.entry.shape).patch
    outside = np.ones((20, 20, 20), bool)
    outside[inside] = False
    assert (patch.plain["image"].numpy()[:, outside] == -7).all()
    assert (
        patch.plain["image"].numpy()[(slice(None), *inside)].tolist()
        == patch.entry.read("image", pf.PatchLocation((0, 0, 0), patch.entry.shape)).tolist()
    )


def test_without_transforms_there_is_nothing_beside_the_patch(small_cache):
    patch = drawn_patches(make_queue(small_cache), 1)[0]
    assert patch.augmented is None
    assert patch.parameters is None


def test_panels_hold_the_planes_through_the_centre(small_cache):
    queue = make_queue(small_cache, recipe())
    shown = drawn_patches(queue, 2)
    axes = sheet(shown).axes
    assert len(axes) == 12
    for number, patch in enumerate(shown):
        for side, images in enumerate((patch.plain, patch.augmented)):
            panels = axes[6 * number + 3 * side : 6 * number + 3 * side + 3]
            volume = images["image"][0].numpy()
            planes = (volume[:, :, 5].T, volume[:, 3, :].T, volume[4, :, :].T)
            for panel, plane in zip(panels, planes, strict=True):
                picture = panel.images[0]
                assert np.asarray(picture.get_array()).tolist() == plane.tolist()
                assert picture.origin == "lower"
                assert picture.get_clim() == grey_window(patch.entry, "image")


def test_windows_are_percentiles_of_each_volume_or_as_given(small_cache):
    low, high = grey_window(small_cache["s1"], "image")
    volume = small_cache["s1"].read("image", pf.PatchLocation((0, 0, 0), small_cache["s1"].shape))[0]
    assert (low, high) == tuple(np.percentile(volume, (0.5, 99.5)))  # 15 planes: all are taken
    figure = sheet(make_queue(small_cache), number=2, window=(-1.5, 2))
    assert {panel.images[0].get_clim() for panel in figure.axes} == {(-1.5, 2)}
    assert any("grey window as given" in text for text in texts(figure))


def test_a_volume_of_one_value_has_a_window(tmp_path):
    for value, expected in ((3, (2.5, 3.5)),):
        subject = pf.Subject("flat", image=pf.ScalarImage(np.full((9, 9, 9), value, np.int16)))
        assert grey_window(pf.build_cache([subject], tmp_path / str(value), progress=False)[0], "image") == expected
    spot = np.zeros((40, 40, 40), np.int16)
    spot[20, 20, 20] = 100
    cache = pf.build_cache([pf.Subject("spot", image=pf.ScalarImage(spot))], tmp_path / "spot", progress=False)
    assert grey_window(cache[0], "image") in ((0, 100), (-0.5, 0.5))


def test_panels_have_the_proportions_of_millimetres(tmp_path):
    cache = make_cache(tmp_path / "cache", affine=np.diag([-2.0, -2.0, 5.0, 1.0]))
    figure = sheet(make_queue(cache), number=1)
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [panel.get_position() for panel in figure.axes]
    sizes = [(box.width * width, box.height * height) for box in boxes]
    across_k, across_j, across_i = sizes
    assert across_k[0] / across_k[1] == pytest.approx(16 / 12)
    assert across_j[0] / across_j[1] == pytest.approx(16 / 50)
    assert across_i[0] / across_i[1] == pytest.approx(12 / 50)
    assert across_k[0] == pytest.approx(across_j[0]), "one scale for all planes"
    assert max(size[1] for size in sizes) == pytest.approx(230)
    assert {"I → L", "J → P", "K → S"} <= set(texts(figure))


def texts(figure):
    return [text.get_text() for text in figure.texts]


# How it is laid out


def overlaps(figure):
    """Pairs of texts that overlap, texts over panels, and what hangs over the page."""
    renderer = figure.canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    found = [f"{text!r} leaves the page" for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    panels = [("a panel", panel.get_window_extent(renderer)) for panel in figure.axes]
    for number, (text, box) in enumerate(boxes):
        for other, beside in [*boxes[number + 1 :], *panels]:
            if box.x0 < beside.x1 - 0.5 and beside.x0 < box.x1 - 0.5 and box.y0 < beside.y1 - 0.5 and beside.y0 < box.y1 - 0.5:
                found.append(f"{text!r} overlaps {other!r}")
    return found


@pytest.mark.parametrize("size", [(8, 6, 10), (18, 18, 1), (1, 12, 12), (12, 1, 12), (4, 16, 16), (1, 1, 12), (1, 1, 1)])
@pytest.mark.parametrize("augmented", [True, False])
def test_nothing_overlaps(tmp_path, size, augmented):
    cache = make_cache(
        tmp_path / "cache", channels=2, classes=20, name="a subject with quite a long name indeed_and_$more$_of_it" + "_" * 60
    )
    figure = sheet(
        make_queue(cache, recipe() if augmented else None, size=size), number=3, title="A title that does not end before the page does " * 3
    )
    assert not overlaps(figure)
    if np.prod(size) > 100:
        assert "and 8 more classes" in texts(figure)
    assert any("the first of 2 channels" in text for text in texts(figure))


def test_long_parameters_are_broken_into_lines(small_cache):
    queue = make_queue(small_cache, recipe())
    steps = [{"transform": f"RandomThing{n}", "parameters": {"strength": [1.5, 2.5, 3.5], "word": "x" * (10 + n)}} for n in range(30)]
    shown = [Shown(p.entry, p.location, p.plain, p.augmented, {"steps": steps}, p.label) for p in drawn_patches(queue, 2)]
    figure = sheet(shown)
    assert not overlaps(figure)
    everything = " ".join(texts(figure))
    for number in range(30):
        assert f"Thing{number} strength 1.5 / 2.5 / 3.5, word {'x' * (10 + number)}" in everything


def test_planes_that_are_lines_are_left_out(tmp_path):
    cache = make_cache(tmp_path / "cache")
    for size, axes in (((8, 6, 1), [2]), ((1, 6, 8), [0]), ((8, 1, 6), [1]), ((2, 2, 2), [2, 1, 0]), ((1, 1, 9), [2, 1, 0])):
        assert [plane.axis for plane in planes_of(size)] == axes
        assert len(sheet(make_queue(cache, size=size), number=2).axes) == 2 * len(axes)


def test_a_cache_without_labels_has_no_outlines(tmp_path):
    figure = sheet(make_queue(make_cache(tmp_path / "cache", label=False)), number=1)
    assert not [line for panel in figure.axes for line in panel.collections]
    assert not [text for text in texts(figure) if "outlines" in text]


def test_classes_are_outlined_in_colours_of_their_own(small_cache):
    patch = drawn_patches(make_queue(small_cache), 1)[0]
    label = torch.zeros_like(patch.plain["label"])
    label[0, 2:4, 1:3, 5] = 1
    label[0, 5:, 4:, 5] = 7
    figure = sheet([Shown(patch.entry, patch.location, {**patch.plain, "label": label}, None, None)])
    one, seven = figure.axes[0].collections
    assert not np.allclose(one.get_colors(), seven.get_colors())
    assert len(one.get_segments()) == 8
    assert len(seven.get_segments()) == 5, "edges on the border of the plane are no outline"
    corners = {tuple(point) for segment in one.get_segments() for point in segment.tolist()}
    assert corners == {(x, y) for x in (1.5, 2.5, 3.5) for y in (0.5, 1.5, 2.5)} - {(2.5, 1.5)}
    assert {"— 1", "— 7"} <= set(texts(figure))


@given(hnp.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_outlines_are_the_edges_between_inside_and_outside(mask):
    expected = set()
    for (row, column), inside in np.ndenumerate(mask):
        if column + 1 < mask.shape[1] and mask[row, column + 1] != inside:
            expected.add(((column + 0.5, row - 0.5), (column + 0.5, row + 0.5)))
        if row + 1 < mask.shape[0] and mask[row + 1, column] != inside:
            expected.add(((column - 0.5, row + 0.5), (column + 0.5, row + 0.5)))
    edges = outline(mask)
    assert edges.shape == (len(expected), 2, 2)
    assert {tuple(map(tuple, edge)) for edge in edges.tolist()} == expected


@pytest.mark.parametrize(
    ("affine", "letters"),
    [
        (np.eye(4), ("R", "A", "S")),
        (np.diag([-1.0, -2, 3, 1]), ("L", "P", "S")),
        (np.array([[0, 0, 2.0, 5], [-1, 0.1, 0, 6], [0, -3, 0.2, 7], [0, 0, 0, 1]]), ("P", "I", "R")),
    ],
)
def test_directions_are_the_closest_axes_of_the_patient(affine, letters):
    assert directions(affine) == letters


# Parameters in words


def step(name, parameters):
    return {"transform": name, "parameters": parameters}


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (step("RandomFlip", {"axes": [0, 2]}), "Flip along I K"),
        (step("RandomAnisotropy", {"axis": 1, "downsampling": 2.3456}), "Anisotropy along J, downsampling 2.35"),
        (
            step("RandomAffine", {"scales": [0.91, 1.0, 1.1], "degrees": [-12.34, 0.0, 5.0], "translation": [0.0] * 3, "shear": [0.0] * 3}),
            "Affine scales 0.91 / 1 / 1.1, rotation −12.3 / 0 / 5°",
        ),
        (step("RandomAffine", {"scales": [0.9] * 3, "degrees": [0.0] * 3}), "Affine scales 0.9"),
        (step("RandomElastic", {"max_displacement": [7.5] * 3, "key": 2**63}), "Elastic up to 7.5 mm"),
        (step("RandomGamma", {"image": {"gamma": 0.8012}, "pet": {"gamma": 3.0}}), "Gamma 0.801"),
        (step("RandomNoise", {"image": {"mean": 0.0, "std": 0.00001, "key": 5}}), "Noise std 1.0e−05"),
        (step("RandomNoise", {"image": [None, {"std": 0.5}]}), "Noise channel 1: std 0.5"),
        (step("RandomNoise", {"image": [{"std": 0.5}]}), "Noise std 0.5"),
        (
            step("RandomBiasField", {"image": {"coefficients": [0.1 * n for n in range(20)]}}),
            "BiasField coefficients 0 / 0.1 / 0.2 / … (20)",
        ),
        (
            step("RandomCutout", {"image": {"boxes": [[1, -2, 3], [4, 5, 6]], "inverted": True, "plain": False}}),
            "Cutout boxes (1 / −2 / 3) / (4 / 5 / 6), inverted",
        ),
        (step("RandomOdd", {"image": {"window": {"low": 1, "high": 2.5}}}), "Odd window (low 1, high 2.5)"),
        (step("Compose (MONAI)", {"seed": 123456789}), "Compose (MONAI)"),
        (step("RandomGamma", {"pet": {"gamma": 3.0}}), None),
        (step("RandomGamma", {}), None),
        (step("RandomFlip", None), None),
        (step("RandomNoise", {"image": [None, None]}), None),
    ],
)
def test_parameters_are_told_in_short(parameters, text):
    drawn = json.loads(json.dumps({"anchor": [0, 0, 0], "steps": [parameters]}))
    assert told(drawn, "image", ("image", "pet", "label")) == ([] if text is None else [text])


def test_a_patch_that_is_left_as_it_is_says_so(small_cache):
    figure = sheet(make_queue(small_cache, pf.Recipe([pf.augment.RandomNoise(p=0)])), number=1)
    assert "nothing was drawn: the patch is left as it is" in texts(figure)


# Files, arguments and errors


def test_the_file_is_a_png_of_the_figures_size_and_the_same_each_time(small_cache, tmp_path):
    from matplotlib.image import imread

    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        figure = sheet(make_queue(small_cache, recipe()), path, number=2, title="Twice")
    pictures = [imread(path) for path in paths]
    assert pictures[0].shape[1::-1] == tuple((figure.get_size_inches() * figure.dpi).round().astype(int))
    assert (pictures[0] == pictures[1]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_the_sampler_looks_for_the_foreground(small_cache, tmp_path):
    sampler = foreground_sampler(small_cache, SIZE, "label")
    targets = {sampler.draw(small_cache[0], seeding.generator(seed)).target for seed in range(40)}
    assert targets == {1, 2}
    assert isinstance(foreground_sampler(small_cache, SIZE, None), pf.UniformSampler)
    assert isinstance(foreground_sampler(make_cache(tmp_path / "cache", classes=0), SIZE, "label"), pf.UniformSampler)


def test_names_are_chosen_or_refused(small_cache):
    images = small_cache[0].images
    assert chosen_names(images) == ("image", "label")
    assert chosen_names({"image": images["image"]}) == ("image", None)
    with pytest.raises(UnknownNameError, match=r"no ScalarImage 'label' to show; there are 'image'"):
        chosen_names(images, image="label")
    with pytest.raises(UnknownNameError, match=r"no LabelMap 'seg' to show; there are 'label'"):
        chosen_names(images, label="seg")
    with pytest.raises(UnknownNameError, match=r"no ScalarImage to show among \['label'\]"):
        chosen_names({"label": images["label"]})


def test_bad_arguments_are_refused(small_cache, tmp_path):
    queue = make_queue(small_cache)
    for window in ((1, 1), (2, 1), (0, float("nan")), (1,)):
        with pytest.raises(ArgumentError, match="window must be two values"):
            sheet(queue, window=window)
    with pytest.raises(ArgumentError, match="an epoch of this queue has 12 patches, not 13"):
        sheet(queue, number=13)
    with pytest.raises(ArgumentError, match="number must be an int of at least 1"):
        sheet(queue, number=0)
    with pytest.raises(ArgumentError, match="no patches"):
        sheet([])
    for path in (tmp_path, tmp_path / "nowhere" / "sheet.png"):
        with pytest.raises(ArgumentError, match="a file in a folder that is there"):
            sheet(queue, path, number=1)


def test_without_matplotlib_the_error_says_what_to_install(small_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(PatchflowError, match=r'needs matplotlib: pip install "patchflow\[demo\]"'):
        sheet(make_queue(small_cache), number=1)


def test_pyplot_is_never_loaded(tmp_path):
    make_cache(tmp_path / "cache")
    code = (
        "import sys, patchflow as pf; from patchflow.show import sheet; "
        f"cache = pf.open_cache({str(tmp_path / 'cache')!r}); sheet(pf.Queue(cache, pf.UniformSampler(8)), number=1); "
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout.strip() == "True False"
    )
