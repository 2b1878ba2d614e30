"""Train a 3D U-Net on a folder of your own and predict the subjects held out.

    python examples/segment.py configs/segment.yaml

Change the configuration, not the script, until you want another network or loss.
"""

import sys
from pathlib import Path
from typing import Any

import lightning
import yaml

import patchflow as pf
from patchflow.demo import Segmentation, UNet, fit


def main(config: dict[str, Any]) -> None:
    data, patches, training = config["data"], config["patches"], config["training"]

    # Files to a cache. Images stay int16 on disk if they are: the z-score is a gain and a bias, applied when a patch is read.
    subjects = pf.find_subjects(data["folder"], **data["images"])
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize()])
    cache = pf.build_cache(subjects, config["cache"]["folder"], preprocess=pipeline, layout=config["cache"]["layout"])
    print(cache)

    # A cache to batches: label-balanced patches, augmented by threads, the same for every number of them.
    probabilities = patches["probabilities"]
    datamodule = pf.PatchDataModule(
        train=cache.subset([name for name in cache.names if name not in data["held_out"]]),
        sampler=pf.LabelSampler(patches["size"], label="label", probabilities=probabilities),
        transform=pf.Recipe(
            [
                pf.augment.RandomFlip(axes=(0,)),
                pf.augment.RandomAffine(scales=0.1, degrees=10, p=0.3),
                pf.augment.RandomGamma(log_gamma=(-0.2, 0.2), p=0.3),
                pf.augment.RandomNoise(std=(0, 0.1), p=0.3),
            ]
        ),
        batch_size=patches["batch_size"],
        samples_per_volume=patches["per_subject"],
        num_workers=patches["num_workers"],
        seed=training["seed"],
    )

    # Batches to a network.
    lightning.seed_everything(training["seed"])
    network = UNet(inputs=cache[0].images["image"].channels, outputs=len(probabilities), width=training["width"])
    model = fit(Segmentation(network, training["steps"], training["learning_rate"]), datamodule, training["steps"])

    # A network to label maps that overlay the source images.
    paths = pf.predict_subjects(
        model,
        cache.subset(data["held_out"]),
        config["prediction"]["folder"],
        patch_size=config["prediction"]["window"],
        patch_overlap=config["prediction"]["overlap"],
        overlap_mode="gaussian",
        output="labels",
    )
    for path in paths.values():
        print(path)


if __name__ == "__main__":
    main(yaml.safe_load(Path(sys.argv[1] if len(sys.argv) > 1 else "configs/segment.yaml").read_text()))
