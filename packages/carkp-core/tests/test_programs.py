"""Programs are compiled when they have to be, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from npu_toys import ToyBackend, toy_graph, toy_plugins, write_config

from carkp_core.errors import CheckpointError
from carkp_core.programs import RefusedError, compile_session, current_program
from carkp_core.session import open_session


def test_the_integer_model_is_compiled(tmp_path: Path) -> None:
    session = open_session(str(write_config(tmp_path, toy_graph())), plugins=toy_plugins())
    result = compile_session(session, opt="O0")
    assert result.hbm == tmp_path / "out" / "model.hbm"
    assert ToyBackend().load_program(result.hbm).options_digest == "toy-1 O0"


def test_fast_perf_needs_no_integer_model(tmp_path: Path) -> None:
    session = open_session(str(write_config(tmp_path)), plugins=toy_plugins())
    assert compile_session(session, fast=True).hbm is not None
    with pytest.raises(CheckpointError, match="no integer model yet"):
        compile_session(session)


def test_another_march_is_refused_naming_both(tmp_path: Path) -> None:
    session = open_session(str(write_config(tmp_path, toy_graph("toy-1"))), march="toy-2", plugins=toy_plugins())
    with pytest.raises(CheckpointError, match=r"march 'toy-1', not for 'toy-2'"):
        session.integer_graph()


def test_a_program_is_compiled_only_when_it_has_to_be(tmp_path: Path) -> None:
    backend, graph = ToyBackend(), toy_graph()
    session = open_session(str(write_config(tmp_path, graph)), plugins=toy_plugins())
    options = session.compile_options()
    said: list[str] = []
    assert "no program yet" in current_program(backend, graph, options, said.append).compiled_because
    assert current_program(backend, graph, options, said.append).compiled_because == ""
    assert len(said) == 1
    other = current_program(backend, toy_graph(seed=1), options, said.append)
    assert "another integer model" in other.compiled_because
    assert other.program.graph_digest == toy_graph(seed=1).digest()
    changed = session.compile_options(opt="O1")
    assert "other options" in current_program(backend, toy_graph(seed=1), changed).compiled_because
    options.hbm.write_bytes(b"damaged")
    assert "cannot be read" in current_program(backend, graph, options).compiled_because


def test_a_refused_network_has_no_program(tmp_path: Path) -> None:
    graph = toy_graph(table=True)
    session = open_session(str(write_config(tmp_path, graph)), plugins=toy_plugins())
    with pytest.raises(RefusedError, match="refuses the network") as refused:
        current_program(ToyBackend(), graph, session.compile_options())
    assert refused.value.exit_status == 1
    assert refused.value.where == "table"
