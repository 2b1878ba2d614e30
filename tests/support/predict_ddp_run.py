"""Predicting and validating on two CPU processes, as a user would write it; each rank writes down what it predicted and was told.

Arguments: folder of the cache, folder for results.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lightning_runs import Mixer, quiet_trainer

import patchflow as pf


def predict(cache, results, names):
    """Predict some subjects into results/NUMBER_OF_THEM."""
    data = pf.PatchDataModule(predict=cache.subset(names), patch_size=8, predict_batch_size=3)
    model = Mixer()
    writer = pf.PredictionWriter(results / str(len(names)), ".nii")
    quiet_trainer(results, devices=2, strategy="ddp", callbacks=[writer]).predict(model, data, return_predictions=False)
    return model.seen


def validate(cache, results):
    """Whole-volume Dice of all subjects, as this rank logs it."""
    data = pf.PatchDataModule(val=cache, patch_size=8)
    trainer = quiet_trainer(results, devices=2, strategy="ddp", callbacks=[pf.WholeVolumeDice(3)])
    trainer.validate(Mixer(), data, verbose=False)
    return {name: float(np.float64(value)) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    cache, results = pf.open_cache(sys.argv[1]), Path(sys.argv[2])
    all_of_them, one = predict(cache, results, cache.names), predict(cache, results, cache.names[:1])
    record = {"all": all_of_them, "one": one, "scores": validate(cache, results)}
    rank = torch.distributed.get_rank()
    (results / f"{rank}.json").write_text(json.dumps(record))
