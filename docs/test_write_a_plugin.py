"""The walk of write-a-plugin.md, taken: its files are written, its package is installed, its commands are run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The reader's folder, and an environment in which the package is installed beside carkp."""
    folder = tmp_path_factory.mktemp("acme")
    path = os.pathsep.join(filter(None, [str(folder / "installed"), os.environ.get("PYTHONPATH")]))
    return folder, os.environ | THREADS | {"PYTHONPATH": path}


def run(words, walk):
    folder, environment = walk
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_walk(docs_page, walk):
    folder, _ = walk
    page = docs_page("write-a-plugin.md")
    for block in page.blocks("toml", "python"):
        assert block.name, f"{block.where}: which file is this?"
        path = folder / block.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    for block in page.blocks("sh"):
        for line in block.text.splitlines():
            result = run(installed(shlex.split(line)), walk)
            assert result.returncode == 0, f"{block.where}: {line}\n{result.stdout}{result.stderr}"
    result = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], walk)
    assert result.returncode == 0, result.stdout


def installed(words: list[str]) -> list[str]:
    """The page's ``pip install -e .`` goes to a folder of its own, from what is already here."""
    if words[0] == "pip":
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
        return [sys.executable, "-m", "pip", "install", *offline, "--target", "installed", "."]
    return [sys.executable, "-m", "carkp_core", *words[1:]]


def test_the_checker_points_into_the_plugins_file(walk):
    """The page promises the line of the author's file: bernoulli2 has no hard-swish of that size."""
    result = run(installed(["carkp", "model-checker", "--config", "acme_keypoints", "--march", "bernoulli2"]), walk)
    assert result.returncode == 1, result.stderr
    assert "acme_backbone/net.py:" in result.stdout


def test_an_unfit_head_is_met_with_what_the_backbone_offers(walk):
    words = ["carkp", "calops", "--config", "acme_keypoints", "--opts", "model.decode_head.in_channels=64"]
    result = run(installed(words), walk)
    assert result.returncode == 2
    assert "3: 128 channels at stride 16" in result.stderr
