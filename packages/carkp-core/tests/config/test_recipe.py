from __future__ import annotations

import pytest

from carkp_core.config.recipe import Recipe, build_value, deferred
from carkp_core.errors import ConfigError


class Part:
    def __init__(self, size, context=None):
        self.size, self.context = size, context
        if size < 0:
            raise ValueError("size must not be negative")


@deferred(later=("extra",))
class Owner:
    def __init__(self, parts, later=None):
        self.parts, self.later = parts, later


class Later:
    def __init__(self, extra, value=1):
        self.extra, self.value = extra, value


def test_builds_depth_first_and_injects_the_context(context):
    built = build_value({"a": [{"type": Part, "size": {"x": 1}["x"]}], "b": 3}, "root", context)
    assert built["b"] == 3
    assert built["a"][0].size == 1
    assert built["a"][0].context is context


def test_deferred_arguments_arrive_as_recipes(context):
    owner = build_value({"type": Owner, "parts": [], "later": {"type": Later, "value": 5}}, "root", context)
    assert isinstance(owner.later, Recipe)
    assert owner.later.path == "root.later"
    made = owner.later.build(extra="e")
    assert (made.extra, made.value) == ("e", 5)


def test_injected_arguments_win(context):
    recipe = Recipe.of({"type": Later, "value": 5, "extra": 1}, "root", context)
    assert recipe.build(value=9).value == 9


def test_replace_and_without_leave_the_original(context):
    recipe = Recipe.of({"type": Later, "value": 5, "extra": 1}, "root", context)
    assert recipe.replace(value=7).build().value == 7
    assert recipe.without("value").build().value == 1
    assert recipe.build().value == 5


def test_a_refused_value_names_the_place(context):
    with pytest.raises(ConfigError, match=r"root: Part refused its arguments: size must not be negative"):
        Recipe.of({"type": Part, "size": -1}, "root", context).build()


def test_an_error_from_deep_inside_keeps_its_type(context):
    def outer():
        def inner():
            def innermost():
                raise ValueError("a defect, not a config")

            innermost()

        inner()

    with pytest.raises(ValueError, match="a defect"):
        Recipe.of({"type": outer}, "root", context).build()


def test_an_argument_passed_on_to_what_does_not_know_it_names_the_place(context):
    def factory(**options):
        def build(**options):
            def inner(**options):
                return Later(**options)

            return inner(**options)

        return build(**options)

    with pytest.raises(ConfigError, match=r"root: factory refused its arguments: .*'vlaue'"):
        Recipe.of({"type": factory, "extra": 1, "vlaue": 2}, "root", context).build()
