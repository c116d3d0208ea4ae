from __future__ import annotations

import os
import subprocess
import sys

import pytest

from carkp_core.cli import run
from carkp_core.commands.plugin_new import KINDS, words_of, write_package
from carkp_core.errors import PluginError

OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
#: ``nox -s example`` sets this; here the kind with most parts stands for all.
TESTED = sorted(KINDS) if os.environ.get("CARKP_TEST_ALL_KINDS") else ["operator"]


@pytest.mark.parametrize("kind", TESTED)
def test_a_new_package_passes_its_own_tests(kind, tmp_path):
    folder, installed = tmp_path / "package", tmp_path / "installed"
    assert run(["plugin", "new", f"acme-{kind}", "--kind", kind, "--out", str(folder)]) == 0
    command = [sys.executable, "-m", "pip", "install", *OFFLINE, "--target", str(installed), str(folder)]
    subprocess.run(command, check=True)
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_written_is_complete_python_without_leftovers(kind, tmp_path, capsys):
    assert run(["plugin", "new", "my-part", "--kind", kind, "--out", str(tmp_path / "p")]) == 0
    said = capsys.readouterr().out
    files = [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
    names = {str(path.relative_to(tmp_path / "p")) for path in files}
    assert {"pyproject.toml", "README.md", "src/my_part/plugin.py", "src/my_part/py.typed"} <= names
    for path in files:
        text = path.read_text()
        assert str(path) in said
        assert not {"@{", "}@", "PACKAGE"} & set(text.split())
        if path.suffix == ".py":
            compile(text, str(path), "exec")
            assert max(map(len, text.splitlines()), default=0) <= 120


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(["plugin", "new", "my-net", "--kind", "backbone", "--out", str(tmp_path)]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["My-Net", "net_work", "1net", "net-", ""])
def test_a_name_that_no_package_can_have(name, tmp_path):
    with pytest.raises(PluginError, match="cannot be a plugin's name"):
        write_package(name, "backbone", tmp_path / "p")


def test_words():
    words = words_of("my-net", "dataset")
    assert (words["package"], words["class_name"]) == ("my_net", "MyNet")
    assert words["requirements"][:2] == ["carkp-core>=0.1,<0.2", "carkp-carfusion>=0.1,<0.2"]
