"""The page in a real browser, where one is installed: its script runs, sorts and filters, and its policy lets nothing else run."""

import html
import json
import re
import shutil
import subprocess

import pytest
from broken_subjects import voxels, write

import patchflow as pf
from patchflow.quality import run_check

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

DRIVE = """
const rows = table => Array.from(document.querySelectorAll(`#${table} tbody tr:not([hidden])`));
const cells = (table, column) => rows(table).map(row => row.cells[column].textContent.trim());
const click = (table, column) => document.querySelectorAll("#" + table + " thead th")[column].querySelector("button").click();
const choose = (table, name, value) => {
  const part = document.querySelector(`.bar[data-for="${table}"] ${name}`);
  part.value = value;
  part.dispatchEvent(new Event("input"));
};
const told = table => document.querySelector(`.bar[data-for="${table}"] .told`).textContent;
const seen = {names: cells("subject-table", 1)};
click("subject-table", 3); seen.up = cells("subject-table", 1);
click("subject-table", 3); seen.down = cells("subject-table", 1);
click("subject-table", 1); seen.again = cells("subject-table", 1);
click("subject-table", 2); click("subject-table", 2); seen.worst = cells("subject-table", 1)[0];
choose("subject-table", "select", "error"); seen.errors = cells("subject-table", 1); seen.told = told("subject-table");
choose("subject-table", "select", ""); choose("subject-table", "input", "S10 int16"); seen.searched = cells("subject-table", 1);
seen.levels = cells("finding-table", 0);
document.querySelector('.chip[data-check="empty"]').click(); seen.chip = cells("finding-table", 1); seen.pressed = told("finding-table");
document.querySelector('.chip[data-check="empty"]').click(); seen.off = cells("finding-table", 1).length;
const link = document.querySelector("#finding-table a"); link.click();
seen.shown = !document.querySelector(link.getAttribute("href")).hidden;
document.title = JSON.stringify(seen);
"""


def loaded(path, folder):
    """What a browser makes of a page."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
        "--dump-dom",
    ]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=120, check=False)
    if done.returncode or b"</html>" not in done.stdout:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]!r}")
    return done.stdout.decode()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    subjects = [write(folder, number, *(part[: 24 - number] for part in voxels(number))) for number in (2, 10, 1)]
    (folder / "s1" / "image.nii.gz").write_bytes(b"\x1f\x8b broken")
    subjects.append(write(folder, 5, *(part * change for part, change in zip(voxels(5), (1, 0), strict=True))))
    run_check([*subjects, pf.Subject("gone", image=pf.ScalarImage(folder / "gone.nii"))], html=folder / "check.html")
    return folder / "check.html"


def test_the_script_runs_and_nothing_else_does(page, tmp_path):
    evil = tmp_path / "evil.html"
    evil.write_text(
        page.read_text().replace(
            "</header>", "<p onclick=x id=p>as it was</p><script>document.getElementById('p').textContent = 'run'</script></header>"
        )
    )
    found = loaded(evil, tmp_path / "profile")
    assert "as it was</p>" in found
    assert re.search(r'data-for="subject-table"><.*?5 shown</span>', found)


def test_tables_sort_and_filter(page, tmp_path):
    driven = tmp_path / "driven.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    driven.write_text(text.replace("</body>", f"<script>{DRIVE}</script></body>"))
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", loaded(driven, tmp_path / "profile")).group(1)))
    assert seen["names"] == ["s2", "s10", "s1", "s5", "gone"]
    assert seen["up"] == ["s10", "s2", "s1", "s5", "gone"]  # by voxels; what has none comes last
    assert seen["down"] == ["s5", "s1", "s2", "s10", "gone"]
    assert seen["again"] == ["gone", "s1", "s2", "s5", "s10"]  # numbers in names count as numbers
    assert seen["worst"] in ("s1", "gone")
    assert sorted(seen["errors"]) == ["gone", "s1"]
    assert seen["told"] == "2 of 5 shown"
    assert seen["searched"] == ["s10"]
    assert seen["levels"] == sorted(seen["levels"], key=["error", "warning", "note"].index)
    assert seen["chip"] == ["s5"]
    assert seen["pressed"] == f"1 of {len(seen['levels'])} shown"
    assert seen["off"] == len(seen["levels"])
    assert seen["shown"] is True  # although the filter had hidden it
