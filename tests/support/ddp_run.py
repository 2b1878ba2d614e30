"""Training runs on two CPU processes with the Trainer's defaults, as a user would write them; each rank writes down what it was given.

Arguments: folder of the cache, folder for results.
"""

import json
import sys
from pathlib import Path

from lightning_runs import Recorder, quiet_trainer

import patchflow as pf


def run(cache, results, name, steps, resume=None):
    """Train for so many steps; write NAME.RANK.json and NAME.ckpt."""
    sampler = pf.LabelSampler(patch_size=(8, 6, 10), label="label", probabilities={0: 1, 1: 1, 2: 2})
    transform = pf.Recipe([pf.augment.RandomFlip(axes=(0, 1, 2))])
    settings = {"batch_size": 2, "samples_per_volume": 5, "num_workers": 1, "val_batch_size": 1, "patch_size": 12}
    data = pf.PatchDataModule(cache, cache, sampler=sampler, transform=transform, **settings)
    model = Recorder()
    trainer = quiet_trainer(results, devices=2, strategy="ddp", max_steps=steps, num_sanity_val_steps=0)
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    trainer.save_checkpoint(results / f"{name}.ckpt")
    record = {
        "length": len(data.train_dataloader()),
        "trained": model.trained,
        "validated": [(names, boxes) for _, (_, names, _), boxes in model.validated],
        "weights": [float(value) for value in model.net[0].weight.flatten()],
    }
    (results / f"{name}.{trainer.global_rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    cache, results = sys.argv[1], Path(sys.argv[2])
    run(cache, results, "whole", 10)
    run(cache, results, "first", 3)
    run(cache, results, "second", 10, results / "first.ckpt")
