"""What users meet: files that vanish, workers that die, an interrupt, shapes and values that nobody thought of."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from broken_subjects import of_arrays, told, voxels, write

import patchflow as pf
from patchflow.quality import check_subjects, run_check
from patchflow.quality import subject as subject_module

IMAGE, LABEL = voxels(0)


class Deadly(pf.ScalarImage):
    """Takes its reader with it, as a decoder may."""

    def load(self):
        os._exit(1)


def test_a_worker_that_dies_is_a_finding():
    subjects = [pf.Subject("deadly", image=Deadly(IMAGE)), of_arrays("sound", image=IMAGE + 1)]
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as executor:
        report = check_subjects(subjects, executor=executor)
    assert ("failed", "deadly", None) in told(report, "error")
    assert "a worker process died" in report.findings[0].sentence
    assert report.exit_code() == 1
    assert report.subjects[0].missing == ("image",)


def test_a_file_that_vanishes_while_it_is_checked(tmp_path, monkeypatch):
    one, other = write(tmp_path, 0), write(tmp_path, 1)
    read = subject_module.read

    def vanishing(image, looker):
        stored = read(image, looker)
        if image.path == tmp_path / "s0" / "image.nii.gz":
            image.path.unlink()
        return stored

    monkeypatch.setattr(subject_module, "read", vanishing)
    report = check_subjects([one, other])
    assert told(report) == [("readable", "s0", "image")]
    assert "does not exist" in report.findings[0].sentence


def test_an_interrupt_ends_the_check_at_once(tmp_path):
    program = """
import sys
from pathlib import Path
import patchflow as pf
from patchflow.quality import check_subjects
class Told(pf.ScalarImage):
    def load(self):
        print("reading", flush=True)
        import time
        time.sleep(0.2)
        return super().load()
import numpy as np
subjects = [pf.Subject(f"s{number}", image=Told(np.arange(24).reshape(2, 3, 4) + number)) for number in range(2000)]
check_subjects(subjects, num_workers=2)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(pf.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])}
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert running.stdout.readline() == "reading\n"
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=30)  # reading all would take minutes
    assert running.returncode != 0
    assert "KeyboardInterrupt" in error


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (IMAGE[:, :, :1], LABEL[:, :, 9:10]),
        (IMAGE[:1, :1, :1], LABEL[:1, :1, :1]),
        (np.stack([IMAGE] * 4), LABEL),
        (np.full(IMAGE.shape, np.nan, np.float32), LABEL),
        (np.where(LABEL == 2, np.float32(3e38), np.float32(-3e38)), LABEL),
        (np.where(LABEL == 2, 1e300, 1.0), LABEL),
        (np.where(LABEL == 2, np.iinfo(np.int64).max, np.iinfo(np.int64).min), LABEL),
        (np.where(LABEL == 2, np.iinfo(np.uint64).max, np.uint64(0)), LABEL),
        (np.full(IMAGE.shape, 5e-324), LABEL),
        (IMAGE, -LABEL.astype(np.int64) * 2**60),
        (IMAGE, LABEL.astype(np.float64)),
        (IMAGE, np.full(LABEL.shape, np.nan)),
        (IMAGE, np.stack([LABEL] * 3)),
    ],
)
def test_whatever_it_holds_a_page_is_made_and_no_check_breaks_off(tmp_path, image, label):
    subjects = [of_arrays("größe-中", image, label), of_arrays("two", image[..., ::-1], label[..., ::-1])]
    report = run_check(subjects, html=tmp_path / "check.html", json=tmp_path / "check.json")
    assert not report.of(check="failed")
    page = (tmp_path / "check.html").read_text()
    assert page.endswith("</html>\n")
    assert "größe-中" in page
    assert not [word for word in (">nan", ">inf", "NaN×", '="nan') if word in page]


def test_a_folder_and_a_file_that_may_not_be_read(tmp_path):
    one = write(tmp_path, 0)
    (tmp_path / "s0" / "label.nii.gz").unlink()
    (tmp_path / "s0" / "label.nii.gz").mkdir()
    assert told(check_subjects([one])) == [("readable", "s0", "label")]
    if os.geteuid():
        two = write(tmp_path, 1)
        (tmp_path / "s1").chmod(0)
        report = check_subjects([two])
        (tmp_path / "s1").chmod(0o700)
        assert told(report) == [("readable", "s1", "label"), ("readable", "s1", "image")]
