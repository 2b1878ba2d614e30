"""A small model that writes down which batches it was trained and validated on, and trainers that print nothing."""

import zlib

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

KNOWN_WARNINGS = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # Lightning 2.6 with PyTorch 2.13
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*"),
]
"""Of Lightning itself, whatever is run."""


def fingerprint(batch):
    """What tells a batch from any other: numbers and names of its patches, and the bytes of its images."""
    image = batch["image"].cpu().contiguous().numpy()
    return tuple(batch["index"].tolist()), tuple(batch["subject"]), zlib.crc32(image.tobytes())


class Recorder(LightningModule):
    """One convolution (and a batch norm, whose buffers DDP keeps alike), trained on the mean of its output.

    Args:
        fail_at: the training step (of all, from 0) that raises.
    """

    def __init__(self, fail_at=None):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv3d(2, 1, 3), torch.nn.BatchNorm3d(1))
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.fill_(0.01)
        self.fail_at = fail_at
        self.trained, self.validated = [], []

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch):
        if self.global_step == self.fail_at:
            raise RuntimeError("out of memory, say")
        self.trained.append(fingerprint(batch))
        loss = (self(batch["image"]) ** 2).mean() / 1e4 + self.net[0].weight.pow(2).sum()
        self.log("loss", loss, batch_size=len(batch["index"]))
        return loss

    def validation_step(self, batch):
        self.validated.append((self.current_epoch, fingerprint(batch), batch["location"].tolist()))
        self.log("val", self(batch["image"]).mean(), batch_size=len(batch["index"]), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


def quiet_trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": "callbacks" in settings}
    return Trainer(default_root_dir=folder, accelerator="cpu", **quiet, **settings)


class Mixer(LightningModule):
    """Three logits of the two channels of a voxel, with a batch norm, so that it matters whether it is in evaluation mode.

    Args:
        spoil: called with the number of the batch and the prediction; gives what `predict_step` returns.
    """

    def __init__(self, spoil=None):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 1), torch.nn.BatchNorm3d(3))
        self.frozen = torch.nn.Dropout(0.5)
        with torch.no_grad():
            self.net[0].weight.copy_(torch.tensor([[0.5, -0.25], [-1.0, 1.0], [0.75, 2.0]]).reshape(3, 2, 1, 1, 1))
            self.net[0].bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
        self.spoil, self.seen = spoil, []

    def forward(self, image):
        return self.frozen(self.net(image))

    def training_step(self, batch):
        return self(batch["image"]).pow(2).mean()

    def validation_step(self, batch):
        """Nothing of its own."""

    def predict_step(self, batch, batch_idx):
        self.seen.append(batch["subject"])
        prediction = self(batch["image"])
        return prediction if self.spoil is None else self.spoil(batch_idx, prediction)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2)
