from __future__ import annotations

import pytest

from carkp_core.config.check import check_tree, require_sound
from carkp_core.config.recipe import deferred
from carkp_core.config.source import run_config
from carkp_core.errors import ConfigError


class Part:
    def __init__(self, size, context, colour="red"):
        self.size, self.context, self.colour = size, context, colour


@deferred(optimizer=("params",))
def owner(part, optimizer=None):
    return part, optimizer


def test_a_misspelt_argument_is_named_with_line_and_suggestion(tmp_path, context):
    path = tmp_path / "my_config.py"
    path.write_text('import torch\nfloat_trainer = dict(\n  optimizer=dict(type="AdamW",\n    lrr=0.1))\n')
    node = run_config(path, {})["float_trainer"]["optimizer"]
    (problem,) = check_tree(node, "float_trainer.optimizer", context, ("params",))
    text = str(problem)
    assert text.startswith("float_trainer.optimizer: AdamW has no argument 'lrr'; did you mean 'lr'? (")
    assert "my_config.py:4)" in text.splitlines()[0]


def test_injected_and_context_arguments_are_not_missing(context):
    node = {"type": owner, "part": {"type": Part, "size": 3}, "optimizer": {"type": "AdamW", "lr": 0.1}}
    assert check_tree(node, "root", context) == []


def test_missing_argument(context):
    (problem,) = check_tree({"type": Part}, "root", context)
    assert "Part needs the argument 'size'" in str(problem)


def test_problems_deep_in_lists_are_found(context):
    node = {"type": owner, "part": [{"type": Part, "size": 1, "color": 2}, {"type": "AdamV", "params": []}]}
    problems = [str(p) for p in check_tree(node, "root", context)]
    assert any("root.part[0]: Part has no argument 'color'; did you mean 'colour'" in p for p in problems)
    assert any("root.part[1].type" in p and "did you mean 'AdamW'" in p for p in problems)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Broken", "cannot be loaded"),
        ("Twice", "offered more than once"),
        ("no.such.module", "cannot be imported"),
        ("math.pi", "not callable"),
    ],
)
def test_types_that_cannot_be_used(context, target, message):
    (problem,) = check_tree({"type": target}, "root", context)
    assert message in str(problem)


def test_require_sound_raises_the_first_and_lists_the_rest(context):
    node = {"type": owner, "part": [{"type": Part}, {"type": Part}]}
    with pytest.raises(ConfigError, match=r"also: root\.part"):
        require_sound(node, "root", context)


def test_foreign_loader_injects_into_its_sampler(context):
    import torch

    node = {
        "type": torch.utils.data.DataLoader,
        "dataset": [1, 2],
        "sampler": {"type": torch.utils.data.DistributedSampler},
    }
    assert check_tree(node, "loader", context) == []


class Sized:
    def __init__(self, size: int, names: tuple[str, str] = ("a", "b")) -> None:
        self.size, self.names = size, names


def test_a_literal_of_another_type_is_named_before_anything_is_built(tmp_path, context):
    path = tmp_path / "my_config.py"
    path.write_text('part = dict(\n  type="X",\n  size="320")\n')
    node = run_config(path, {})["part"] | {"type": Sized}
    (problem,) = check_tree(node, "part", context)
    assert str(problem).startswith("part: Sized: the argument 'size' has another type (")
    assert "my_config.py:3)" in str(problem).splitlines()[0]
    assert (problem.seen, problem.allowed) == ("'320' (str)", "int")


def test_a_tuple_of_another_length_has_another_type(context):
    (problem,) = check_tree({"type": Sized, "size": 1, "names": ["a"]}, "part", context)
    assert problem.allowed == "tuple[str, str]"
