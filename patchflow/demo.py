"""`patchflow demo`: from NIfTI files to a trained network to a stitched label map, on real data, in minutes and without a download.

The data are the MNI152 T1 template and its grey and white matter maps at 1 mm, which come with nilearn (Fonov et al., NeuroImage 47,
2009, S102). Subjects that differ are made of it: flipped, smoothly warped, scaled in intensity, with a bias field and noise.
"""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import patchflow as pf
from patchflow import seeding
from patchflow.errors import PatchflowError
from patchflow.images.write import write_nifti
from patchflow.segmentation import Segmentation, UNet
from patchflow.types import Affine, Array, Int3, count

CLASSES = {1: "grey matter", 2: "white matter"}
PATCH, BATCH = 32, 8
"""Many small patches teach more in a minute than few large ones of as many voxels: docs/design.md, section 8."""
WINDOW, OVERLAP = 64, 16


def run(folder: str | Path = "patchflow-demo", steps: int = 120, seed: int = 0, subjects: int = 5) -> dict[str, float]:
    """Run the whole demonstration and leave its files in `folder`.

    Args:
        folder: gets `data/` (NIfTI), `cache/`, `prediction.nii.gz` and `prediction.png`.
        steps: training steps of eight patches.
        seed: of everything random.
        subjects: how many to train on; one more is held out.

    Returns:
        Dice of the held-out subject per class name.

    Raises:
        ArgumentError: for less than one step or subject, or a negative seed.
        PatchflowError: where nilearn is not installed.
    """
    steps, subjects, seed = count(steps, "steps", 1), count(subjects, "subjects", 1), count(seed, "seed", 0)
    began, folder = time.perf_counter(), Path(folder)
    names = [f"subject{number}" for number in range(subjects + 1)]
    print(f"1. {len(names)} subjects of the MNI152 template in {folder / 'data'}")
    make_subjects(folder / "data", names, seed)
    found = pf.find_subjects(folder / "data", image="*/t1.nii.gz", label="*/tissue.nii.gz")
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize()])
    cache = pf.build_cache(found, folder / "cache", preprocess=pipeline)
    print(f"2. {cache!r}")

    print(f"3. training a 3D U-Net for {steps} steps of {BATCH} patches of {PATCH}^3")
    lightning.seed_everything(seed, verbose=False)  # the network's first weights
    network = UNet(outputs=len(CLASSES) + 1)
    model = fit(Segmentation(network), patches(cache.subset(names[:-1]), steps, seed), steps)
    print(f"4. predicting {names[-1]}, which the network has not seen")
    path = folder / "prediction.nii.gz"
    pf.predict(model, cache[-1], patch_size=WINDOW, patch_overlap=OVERLAP, overlap_mode="gaussian", output="labels", path=path)
    torch.save(model.state_dict(), folder / "network.pt")  # for `patchflow predict --config configs/brain.yaml`
    scores = show(found[-1], pf.LabelMap(path).data[0], folder / "prediction.png")
    print(f"   {path} overlays {found[-1]['image'].path}; look at {folder / 'prediction.png'}")
    print(f"done in {time.perf_counter() - began:.0f} s")
    return scores


def patches(cache: pf.Cache, steps: int, seed: int) -> pf.PatchDataModule:
    """Label-balanced, augmented patches for `steps` steps."""
    recipe = pf.Recipe(
        [
            pf.augment.RandomFlip(axes=(0,)),
            pf.augment.RandomAffine(scales=0.1, degrees=10, p=0.3),
            pf.augment.RandomGamma(log_gamma=(-0.2, 0.2), p=0.3),
            pf.augment.RandomNoise(std=(0, 0.1), p=0.3),
        ]
    )
    sampler = pf.LabelSampler(PATCH, label="label", probabilities={0: 1, 1: 1, 2: 1})
    samples = -(-BATCH * steps // len(cache))
    return pf.PatchDataModule(
        cache, sampler=sampler, transform=recipe, batch_size=BATCH, samples_per_volume=samples, num_workers=1, seed=seed
    )


# Subjects from the template


def make_subjects(folder: Path, names: Sequence[str], seed: int) -> None:
    """Write `NAME/t1.nii.gz` (int16) and `NAME/tissue.nii.gz` (uint8: 0 other, 1 grey matter, 2 white matter) for each name."""
    t1, grey, white, affine = template()
    # The last subject is held out. A subject depends on its number alone, so that more of them leave the others as they are.
    for number, name in enumerate(names):
        rng = seeding.generator(seed * 1000 + number)
        warped = warp(np.stack([t1, grey, white]), displacement(rng, t1.shape))
        if rng.random() < 0.5:
            warped = warped[:, ::-1]
        bias = smooth_field(rng, t1.shape, points=4)
        image = warped[0] * np.exp(0.2 * bias) * rng.uniform(2, 6) + rng.normal(0, 12, t1.shape)
        background = 1 - warped[1] - warped[2]
        label = np.argmax(np.stack([background, warped[1], warped[2]]), axis=0)
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_nifti(folder / name / "t1.nii.gz", np.clip(image, 0, 32767).astype(np.int16), affine)
        write_nifti(folder / name / "tissue.nii.gz", label.astype(np.uint8), affine)


def template() -> tuple[Array, Array, Array, Affine]:
    """T1 (0..255), grey and white matter (0..1), float32 (I, J, K) each, and their affine, from nilearn's files."""
    spec = importlib.util.find_spec("nilearn")  # finds the files without paying for the import
    if spec is None or not spec.submodule_search_locations:
        raise PatchflowError('the demonstration needs the template that comes with nilearn: pip install "patchflow[demo]"')
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    images = [pf.ScalarImage(data / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("t1", "gm", "wm")]
    t1, grey, white = (image.data[0] for image in images)
    return t1, grey / 255, white / 255, images[0].affine


def smooth_field(rng: np.random.Generator, shape: Int3, points: int) -> Array:
    """A smooth random field, float32 (I, J, K), about -1..1: normal values on a coarse grid, interpolated."""
    coarse = torch.from_numpy(rng.normal(0, 0.5, (1, 1, points, points, points)).astype(np.float32))
    return F.interpolate(coarse, shape, mode="trilinear", align_corners=True)[0, 0].numpy()


def displacement(rng: np.random.Generator, shape: Int3, millimetres: float = 6.0) -> Array:
    """A smooth warp, float32 (3, I, J, K), in voxels of 1 mm."""
    return np.stack([millimetres * smooth_field(rng, shape, points=5) for _ in range(3)])


def warp(volumes: Array, moved: Array) -> Array:
    """Volumes (C, I, J, K) read at each voxel plus its displacement `moved`, linearly; 0 outside."""
    shape = volumes.shape[1:]
    axes = [torch.linspace(-1, 1, n) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    for axis, n in enumerate(shape):
        grid[..., axis] += torch.from_numpy(moved[axis]) * (2 / (n - 1))
    # grid_sample counts axes backwards: x is the last.
    return F.grid_sample(torch.from_numpy(volumes.copy())[None], grid.flip(-1)[None], align_corners=True)[0].numpy()


# Training


def fit(model: Segmentation, data: pf.PatchDataModule, steps: int) -> Segmentation:
    """Train `model` for `steps` steps on the batches of `data`, without checkpoints or logs."""
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return model


# Looking at it


def dice(one: Array, other: Array) -> float:
    """Twice the overlap of two masks over the sum of their sizes (Dice, Ecology 26, 1945); 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def show(subject: pf.Subject, prediction: Array, path: Path) -> dict[str, float]:
    """Print and return the Dice of each class of a prediction (I, J, K), and draw it into a PNG."""
    truth = subject["label"].data[0]
    scores = {name: dice(prediction == label, truth == label) for label, name in CLASSES.items()}
    for name, score in scores.items():
        print(f"   Dice of {name}: {score:.3f}")
    picture(path, subject["image"].data[0], truth, prediction, scores)
    return scores


def picture(path: Path, image: Array, truth: Array, prediction: Array, scores: dict[str, float]) -> None:
    """Draw image, truth and prediction, each (I, J, K), in three planes into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    centre = [int(axis.mean()) for axis in np.nonzero(truth)]
    colours = ListedColormap([(0, 0, 0, 0), (0.95, 0.55, 0.15, 0.75), (0.25, 0.65, 0.95, 0.75)])
    figure, rows = pyplot.subplots(3, 3, figsize=(9, 9), facecolor="black", constrained_layout=True)
    for axis, row in enumerate(rows):
        plane = np.take(image, centre[axis], axis).T
        high = np.percentile(image[truth > 0], 99.5)
        for cell, overlay, title in zip(row, (None, truth, prediction), ("T1", "truth", "prediction"), strict=True):
            cell.imshow(plane, cmap="gray", origin="lower", vmin=0, vmax=high)
            if overlay is not None:
                cell.imshow(np.take(overlay, centre[axis], axis).T, cmap=colours, origin="lower", vmin=0, vmax=2, interpolation="nearest")
            if axis == 0:
                cell.set_title(title, color="white")
            cell.set_axis_off()
    figure.suptitle("held-out subject: " + ", ".join(f"Dice of {name} {score:.3f}" for name, score in scores.items()), color="white")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
