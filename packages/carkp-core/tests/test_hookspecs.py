from __future__ import annotations

import inspect

import pytest

from carkp_core import hookspecs

SPECS = {name: value for name, value in vars(hookspecs).items() if name.startswith("carkp_")}

#: The public hook surface. A change here is a change for every plugin author.
GOLDEN = """\
carkp_components() -> 'Iterable[Component]'
carkp_configs() -> 'Mapping[str, str]'
carkp_commands() -> 'Iterable[Command]'
carkp_backends() -> 'Iterable[Backend]'
carkp_operators() -> 'Iterable[Operator]'
carkp_quant_scheme(node: 'Any', march: 'str') -> 'Any'
carkp_run_started(run: 'Run') -> 'None'
carkp_epoch_finished(run: 'Run', epoch: 'int', metrics: 'Mapping[str, float]') -> 'None'
carkp_run_finished(run: 'Run', error: 'BaseException | None') -> 'None'"""


def test_the_surface():
    assert "\n".join(f"{name}{inspect.signature(function)}" for name, function in SPECS.items()) == GOLDEN


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_says_when_it_is_called(name):
    text = inspect.getdoc(SPECS[name])
    assert "alled" in text
    for parameter in inspect.signature(SPECS[name]).parameters:
        assert parameter in text or name.startswith("carkp_run"), f"{name} does not speak of {parameter}"
