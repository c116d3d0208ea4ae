"""The project's pages as values: headings, links, code blocks and inline code, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parent.parent


@frozen
class Block:
    """A fenced block. ``name`` is the file it stands for: inline code alone on the line before, with a colon."""

    page: Path
    line: int
    language: str
    name: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@frozen
class Page:
    """A Markdown file."""

    path: Path
    text: str

    @property
    def prose(self) -> str:
        """The text with fenced blocks blanked, so that lines keep their numbers."""
        return re.sub(r"^```[\s\S]*?^```$", lambda m: "\n" * m[0].count("\n"), self.text, flags=re.MULTILINE)

    def where(self, offset: int) -> str:
        """``docs/page.md:12`` for a position in the text or the prose."""
        return f"{self.path.relative_to(ROOT)}:{self.prose.count(chr(10), 0, offset) + 1}"

    def slugs(self) -> set[str]:
        """The anchors of the headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def links(self) -> Iterator[tuple[str, str]]:
        """Each link's place and target."""
        for found in re.finditer(r"\]\(([^)\s]+)\)", self.prose):
            yield self.where(found.start()), found[1]

    def inline_code(self) -> Iterator[tuple[str, str]]:
        """Each inline code's place and text."""
        for found in re.finditer(r"`([^`\n]+)`", self.prose):
            yield self.where(found.start()), found[1]

    def blocks(self, *languages: str) -> list[Block]:
        """The fenced blocks of these languages, in order."""
        pattern = r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n([\s\S]*?)^```$"
        found = []
        for match in re.finditer(pattern, self.text, re.MULTILINE):
            line = self.text.count("\n", 0, match.start(2)) + 1
            found.append(Block(self.path, line, match[2], match[1] or "", match[3]))
        return [block for block in found if block.language in languages]


def page(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    """Every page of the project."""
    return [
        page(path) for pattern in ("*.md", "docs/*.md", "packages/*/README.md") for path in sorted(ROOT.glob(pattern))
    ]


@pytest.fixture
def docs_page():
    """A page of docs/ by its name."""
    return lambda name: page(ROOT / "docs" / name)
