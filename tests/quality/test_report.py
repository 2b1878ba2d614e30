import io
import json
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from html.parser import HTMLParser
from multiprocessing import get_context

import numpy as np
import pytest
from broken_subjects import of_arrays, told, voxels, write

import patchflow as pf
from patchflow.quality import check_subjects, run_check
from patchflow.quality.findings import CHECKS, Finding
from patchflow.quality.report import report_of
from patchflow.quality.style import SCRIPT

EVIL = "<script>alert(1)</script>"


class Outline(HTMLParser):
    """Every element and attribute of a page, as a browser would see them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def outline(path):
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def three(folder):
    one, two, three = (write(folder, number) for number in range(3))
    (folder / "s1" / "image.nii.gz").write_bytes(b"\x1f\x8b broken")
    return [one, two, three]


def test_json_holds_findings_and_facts_without_nan(tmp_path):
    image = voxels(5)[0].astype(np.float32)
    subjects = [*three(tmp_path), of_arrays("nan", image=np.full_like(image, np.nan), label=voxels(5)[1])]
    report = run_check(subjects, json=tmp_path / "check.json", classes=[1, 2])
    content = json.loads((tmp_path / "check.json").read_text(), parse_constant=pytest.fail)
    assert content["format"] == "patchflow check"
    assert content["summary"] == {"subjects": 4, "error": 2, "warning": 0, "note": 1}
    assert [(part["level"], part["check"], part["subject"]) for part in content["findings"]] == [
        ("error", "readable", "s1"),
        ("error", "finite", "nan"),
        ("note", "dtype", None),
    ]
    assert content["findings"][0]["mend"] == report.findings[0].mend
    assert content["subjects"][1]["unreadable"] == ["image"]
    assert content["subjects"][0]["images"]["label"]["classes"][0]["value"] == 1
    assert report.subjects[0].picture == b""  # nobody asked for a page


def test_text_is_cut_where_much_is_alike():
    findings = [Finding("warning", "clipped", f"s{number}", "image", "clipped", "mend it") for number in range(25)]
    lines = str(report_of(findings, [])).splitlines()
    assert len(lines) == 12
    assert lines[1] == "warning: s0 image: clipped; mend it [clipped]"
    assert lines[-1] == "warning: 15 more of the check 'clipped': see the JSON or HTML report"


def test_text_does_not_steer_a_terminal():
    text = str(report_of([Finding("note", "dtype", None, None, "a\x1b[2Jb\nc", "d")], []))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_findings_can_be_asked_for_and_the_worst_come_first():
    findings = [Finding(level, "range", "s", None, level, "") for level in ("note", "error", "warning")]
    report = report_of(findings, [])
    assert [finding.level for finding in report.findings] == ["error", "warning", "note"]
    assert [finding.level for finding in report.of(level="note")] == ["note"]
    assert report.of(check="range", subject="t") == []
    assert report.counts == {"error": 1, "warning": 1, "note": 1}


def test_every_executor_gives_the_same(tmp_path):
    subjects = three(tmp_path)
    alone = check_subjects(subjects)
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        for executor in (threads, processes):
            other = check_subjects(subjects, executor=executor)
            assert other.findings == alone.findings
            assert other.subjects == alone.subjects
    assert check_subjects(subjects, num_workers=2).subjects == alone.subjects
    with pytest.raises(pf.ArgumentError, match="not both"):
        check_subjects(subjects, num_workers=2, executor=threads)
    with pytest.raises(pf.WorkerError, match="could not carry out the check"):
        check_subjects(subjects, executor=threads)  # it is shut down


def test_files_that_cannot_be_written(tmp_path):
    report = report_of([], [])
    for write_to in (report.to_json, report.to_html):
        with pytest.raises(pf.ArgumentError, match="cannot be written"):
            write_to(tmp_path / "none" / "here")


# The page


def test_a_page_asks_for_nothing_from_outside(tmp_path):
    run_check(three(tmp_path), html=tmp_path / "check.html", title="Three")
    found = outline(tmp_path / "check.html")
    assert found.tags.count("script") == 1
    assert found.texts.count(SCRIPT) == 1
    addresses = [value for _, name, value in found.attributes if name in ("src", "href", "action", "srcset")]
    assert addresses
    assert all(re.match(r"#|data:image/png;base64,", address) for address in addresses)
    assert "Three" in found.texts
    assert found.tags.count("img") == 3
    assert ("img", "loading", "lazy") in found.attributes
    assert "url(" not in (tmp_path / "check.html").read_text()


def test_a_page_tells_findings_and_subjects(tmp_path):
    report = run_check(three(tmp_path), html=tmp_path / "check.html")
    text = " ".join(outline(tmp_path / "check.html").texts)
    assert report.findings[0].sentence in text
    assert report.findings[0].mend in text
    for name in ("s0", "s1", "s2", "24 × 22 × 18", "int16", "RAS"):
        assert name in text


def test_names_from_files_are_escaped(tmp_path):
    image, label = voxels(0)
    label = label.copy()
    label[0, 0, 0] = 2
    path = tmp_path / f"{EVIL.replace('/', '-')}\"'&.nii.gz"
    path.write_bytes(b"nothing")
    subject = pf.Subject(
        "it's & \u202e 'x", **{"a&b' onload=x": pf.ScalarImage(image)}, broken=pf.ScalarImage(path), label=pf.LabelMap(label)
    )
    # Names of subjects and images cannot hold < or >, whatever is given; what they hold is broken in afterwards, as a pickle could.
    subject.name = f"{EVIL}\"'"
    subject._images[f'"><img src=x onerror=alert(1)>{EVIL}'] = pf.ScalarImage(image + 1)
    report = run_check([subject], html=tmp_path / "check.html", classes={1: EVIL, 2: EVIL, 3: EVIL}, title=EVIL)
    assert report.of(check="readable")
    found = outline(tmp_path / "check.html")
    assert found.tags.count("script") == 1
    assert found.tags.count("img") == 1
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    text = "".join(found.texts)
    assert text.count(EVIL) > 5
    assert str(path) in text


def test_the_policy_allows_the_script_and_nothing_else(tmp_path):
    import base64
    import hashlib

    report_of([], check_subjects([of_arrays("s")]).subjects).to_html(tmp_path / "check.html")
    policy = next(value for _, name, value in outline(tmp_path / "check.html").attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy


def test_every_check_is_described():
    assert all(text and text[0].islower() for text in CHECKS.values())


def test_a_thousand_subjects_make_a_page_of_some_tens_of_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (64, 64, 64)).astype(np.float32)  # nothing packs worse than noise
    one = check_subjects([of_arrays("s", image=image, label=np.zeros(image.shape, np.uint8))]).subjects[0]
    assert len(one.picture) < 45000
    from dataclasses import replace

    many = [replace(one, name=f"s{number}") for number in range(1000)]
    report_of([], many).to_html(tmp_path / "check.html")
    assert (tmp_path / "check.html").stat().st_size < 60e6


# Pictures


def decoded(picture):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_a_picture_shows_planes_and_outlines():
    pytest.importorskip("PIL")
    image, label = voxels(0)
    subject = pf.Subject("s", image=pf.ScalarImage(image), label=pf.LabelMap(label))
    picture = decoded(check_subjects([subject]).subjects[0].picture)
    first, second = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)  # of labels 1 and 2
    coloured = (picture.max(-1) != picture.min(-1)).sum()
    assert (picture == first).all(-1).sum() + (picture == second).all(-1).sum() == coloured > 300
    assert picture.shape[0] == 110  # of 24 x 22 x 18 voxels of 1 mm, 24 mm are 120 pixels and the axial plane is 22 mm tall
    assert picture.shape[1] == 120 + 4 + 120 + 4 + 110


def test_a_picture_has_up_above_and_right_on_the_right():
    pytest.importorskip("PIL")
    volume = np.zeros((20, 30, 40), np.float32)
    volume[15:, :, :] += 1  # right
    volume[:, :, 35:] += 2  # top
    volume[:, 25:, :] += 4  # front
    for axes, signs in (((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (1, -1, -1))):
        turned = np.transpose(volume, axes)
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
            affine[world, axis] = sign
        turned = turned[tuple(slice(None, None, sign) for sign in signs)]
        subject = pf.Subject("s", image=pf.ScalarImage(np.ascontiguousarray(turned), affine))
        picture = decoded(check_subjects([subject], skip=CHECKED).subjects[0].picture)[..., 0].astype(int)
        height, axial, coronal = 120, picture[:, :60], picture[:, 64:124]
        assert picture.shape == (height, 60 + 4 + 60 + 4 + 90)
        sagittal = picture[:, 128:]
        assert coronal[5, 30] > coronal[60, 30]  # the top is above
        assert coronal[60, 55] > coronal[60, 30]  # right is on the right
        assert axial[-85, 30] > axial[-40, 30]  # the front is above
        assert axial[-40, 55] > axial[-40, 30]
        assert sagittal[60, 85] > sagittal[60, 40]  # the front is on the right
        assert sagittal[5, 40] > sagittal[60, 40]


CHECKED = ("clipped",)


def test_pictures_of_flat_and_labels_only_and_4d_subjects():
    image, label = voxels(0)
    subjects = [
        pf.Subject("flat", image=pf.ScalarImage(image[:, :, :1]), label=pf.LabelMap(label[:, :, 8:9])),
        pf.Subject("labels", label=pf.LabelMap(label)),
        pf.Subject("line", image=pf.ScalarImage(image[:, :1, :1])),
        pf.Subject("channels", image=pf.ScalarImage(np.stack([image, image]))),
        pf.Subject("elsewhere", image=pf.ScalarImage(image), label=pf.LabelMap(label[1:])),
    ]
    drawn = {facts.name: facts for facts in check_subjects(subjects, skip=["images", "clipped"]).subjects}
    assert [name for name, facts in drawn.items() if facts.picture] == ["flat", "labels", "channels", "elsewhere"]
    assert drawn["flat"].caption == "image, outline label; axial K = 0"
    assert drawn["elsewhere"].caption.startswith("image; axial K = 9")
    assert told(check_subjects([subjects[-1]])) == [("shape", "elsewhere", "label")]
