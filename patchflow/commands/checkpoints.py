"""Where `fit` leaves its checkpoints, and which of them is meant."""

from pathlib import Path

INTERRUPTED = "interrupted"
"""The name of the checkpoint that is written where training is interrupted or fails."""


_PLACES = ("*.ckpt", "checkpoints/*.ckpt", "lightning_logs/*/checkpoints/*.ckpt")


def last_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint in the places below a Trainer's folder where `fit` leaves them; None where there is none."""
    found = [path for place in _PLACES for path in root.glob(place)]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name == "last.ckpt"), default=None)
