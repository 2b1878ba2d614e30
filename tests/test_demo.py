"""The demonstration, whole, as its command line runs it: minutes, because it trains a network."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest

CONFIG = Path(__file__).parents[1] / "configs" / "brain.yaml"

pytest.importorskip("nilearn", reason='the demonstration needs the extra "demo"')


def peak_memory(process: subprocess.Popen) -> int:
    """Bytes that the process had in memory at the most, polled until it ends; 0 where the system does not tell."""
    peak, status = 0, Path(f"/proc/{process.pid}/status")
    ended = threading.Event()
    while process.poll() is None and status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        ended.wait(0.2)
    return peak


@pytest.mark.timeout(900)
def test_the_demonstration_segments_both_tissues_in_bounded_memory(tmp_path):
    with (tmp_path / "log").open("w+") as log:
        command = [sys.executable, "-m", "patchflow.cli"]
        process = subprocess.Popen([*command, "demo"], stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        peak = peak_memory(process)
        assert process.wait() == 0, (tmp_path / "log").read_text()[-3000:]
    demo = tmp_path / "patchflow-demo"
    said = (tmp_path / "log").read_text()
    scores = dict(re.findall(r"Dice of (\w+ matter): ([0-9.]+)", said))
    assert float(scores["grey matter"]) >= 0.85
    assert float(scores["white matter"]) >= 0.85
    assert peak < 2 * 2**30
    written = nibabel.load(demo / "prediction.nii.gz")
    source = nibabel.load(demo / "data" / "subject5" / "t1.nii.gz")
    assert written.shape == source.shape
    assert np.allclose(written.affine, source.affine)
    labels = np.asarray(written.dataobj)
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1, 2]
    truth = np.asarray(nibabel.load(demo / "data" / "subject5" / "tissue.nii.gz").dataobj)
    for label, name in ((1, "grey matter"), (2, "white matter")):
        overlap = 2 * ((labels == label) & (truth == label)).sum() / ((labels == label).sum() + (truth == label).sum())
        assert abs(overlap - float(scores[name])) < 1e-3, "the score printed is that of the files written"
    assert (demo / "prediction.png").read_bytes().startswith(b"\x89PNG")

    # The network that the demonstration leaves predicts as configs/brain.yaml says: the same subject, mirrored too.
    network = "--prediction.checkpoints=[patchflow-demo/network.pt]"
    subprocess.run([*command, "predict", "--config", str(CONFIG), network], check=True, cwd=tmp_path, capture_output=True)
    predicted = tmp_path / "patchflow-brain" / "predictions"
    mirrored = np.asarray(nibabel.load(predicted / "subject5.nii.gz").dataobj)
    names = json.loads((predicted / "subject5.json").read_text())["labels"]
    assert names == {"1": "grey matter", "2": "white matter"}
    for label, name in names.items():
        overlap = (
            2 * ((mirrored == int(label)) & (truth == int(label))).sum() / ((mirrored == int(label)).sum() + (truth == int(label)).sum())
        )
        assert overlap > float(scores[name]) - 0.02
