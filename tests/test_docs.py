"""Every page of documentation runs as it stands, on small real data: see `pages.py` for what is run and what is checked."""

import ast
import os
import re
import shutil
from pathlib import Path

import lightning
import pytest
import torch
from page_data import write_page_data
from pages import Reader, blocks_of, check_shown

import patchflow as pf

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "design.md")  # which shows forms, and no runs
pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_page_data(folder)
    return folder


@pytest.fixture
def here(data, tmp_path, monkeypatch):
    """A working folder that holds the data."""
    shutil.copytree(data, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATCHFLOW_CACHE", str(tmp_path / "user-cache"))
    return tmp_path


def model(image):
    return torch.cat([-image, image, 0 * image], dim=1)


class Module(lightning.LightningModule):
    def predict_step(self, batch):
        return model(batch["image"])


@pytest.mark.filterwarnings("ignore")  # Lightning's, about few workers and short runs, and those of the peers
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(page, here):
    with Reader(page) as reader:
        assert reader.run() > 0


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(here):
    """A reader of the README has a model, and data/s1 is one of the subjects."""
    (here / "data" / "s1").mkdir()
    for name in ("image", "label"):
        os.link(here / "data" / "s01" / f"{name}.nii.gz", here / "data" / "s1" / f"{name}.nii.gz")
    with Reader(ROOT / "README.md", model=model, module=Module()) as reader:
        assert reader.run() > 0


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_pages_take_what_is_public(page):
    """Rooms that are no part of `import patchflow` are there in a long-lived process, and not in a reader's script."""
    trees = [ast.parse(block.text) for block in blocks_of(page) if block.language == "python"]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    taken = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "pf"}
    assert taken
    assert taken - set(pf.__all__) == set()


def test_blocks_know_where_they_stand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "one\n```python torchio raises\nx = 1\n```\n```bash\npatchflow demo\n```\n```yaml\na: 1\n```\n```yaml a.yaml\nb: 2\n```\n"
    )
    python, bash, yaml = blocks_of(page)
    assert (python.language, python.packages, python.line, python.text) == ("python", ["torchio"], 3, "x = 1\n")
    assert (bash.language, bash.line, bash.text) == ("bash", 6, "patchflow demo\n")
    assert (yaml.language, yaml.words, yaml.text) == ("yaml", ("a.yaml",), "b: 2\n")


def test_what_a_page_shows_is_held_against_what_is_told():
    check_shown(["3 subjects, ... voxels", "...", "end"], ["3 subjects, 12 MiB of voxels", "a", "b", "end"], "page")
    with pytest.raises(AssertionError, match="shows"):
        check_shown(["3 subjects"], ["4 subjects"], "page")
    with pytest.raises(AssertionError, match="shows"):
        check_shown(["one"], ["one", "two"], "page")


def test_a_wrong_page_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, error in {
        "```python\nprint(1)\n# 2\n```": "line 2 shows",
        "```python raises\nx = 1\n# ValueError: no\n```": "no error",
        "```python raises\nint('a')\n# ValueError: another\n```": "shows",
        "```bash\npatchflow cache info nothing-there\n```": "returned 2",
    }.items():
        page = tmp_path / "page.md"
        page.write_text(text + "\n")
        with Reader(page) as reader, pytest.raises(AssertionError, match=error):
            reader.run()
    page.write_text("```python not_installed_at_all\nx = = 1\n```\n")
    with Reader(page) as reader, pytest.raises(SyntaxError):
        reader.run()
