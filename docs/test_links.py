"""Every link leads to a file and a heading; every path of a module named in prose exists."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parent.parent
SOURCES = [path / "src" for path in sorted((ROOT / "packages").iterdir()) if (path / "src").is_dir()]
SCHEMES = ("http:", "https:", "mailto:")


def test_every_relative_link_leads_somewhere(pages):
    slugs = {page.path: page.slugs() for page in pages}
    broken = []
    for page in pages:
        for where, target in page.links():
            if target.startswith(SCHEMES):
                continue
            file, _, heading = unquote(target).partition("#")
            path = (page.path.parent / file).resolve() if file else page.path
            if not path.exists() or (heading and heading not in slugs.get(path, ())):
                broken.append(f"{where}: {target}")
    assert broken == []


def test_every_page_of_docs_can_be_reached_from_the_readme(pages):
    by_path = {page.path: page for page in pages}
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        if path in seen or path not in by_path:
            continue
        seen.add(path)
        targets = [target.partition("#")[0] for _, target in by_path[path].links()]
        todo += [(path.parent / target).resolve() for target in targets if not target.startswith(SCHEMES)]
    assert {page.path.name for page in pages if page.path.parent.name == "docs" and page.path not in seen} == set()


def test_every_module_path_in_prose_exists(pages):
    """``carkp_bpu/march/`` stands for a path under a package's src; ``ir/arithmetic.py`` for one inside a package.

    The tutorial's ``configs/keypoint/NAME.py`` is an alias of a shipped config, not a file.
    """
    missing = []
    for page in pages:
        readers_own = {block.name for block in page.blocks("python", "toml")}
        for where, code in page.inline_code():
            if (
                code in readers_own
                or not re.fullmatch(r"(?:[a-z_]+/)+(?:[a-z0-9_]+\.py)?", code)
                or code.startswith("configs/")
            ):
                continue
            roots = [ROOT, ROOT / "docs", *SOURCES, *(package for source in SOURCES for package in source.iterdir())]
            if not any((root / code).exists() for root in roots):
                missing.append(f"{where}: {code}")
    assert missing == []


def test_every_test_named_in_prose_exists(pages):
    """``tests/ir/test_reference.py::test_name`` and a lone ``test_name`` are functions of the suite."""
    suite = [*ROOT.glob("packages/*/tests/**/test_*.py"), *ROOT.glob("tests/test_*.py"), *ROOT.glob("docs/test_*.py")]
    functions = {name for path in suite for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}
    files = {path.name for path in suite}
    missing = []
    for page in pages:
        for where, code in page.inline_code():
            file, _, function = code.rpartition("::")
            if file and Path(file).name not in files:
                missing.append(f"{where}: {code}")
            if re.fullmatch(r"test_\w+", function) and function not in functions:
                missing.append(f"{where}: {code}")
    assert missing == []
