from __future__ import annotations

from carkp_core import errors


def test_message_says_where_seen_allowed_and_what_to_do():
    error = errors.ConfigError("no", where="a.b", seen="1", allowed="2", remedy="change it")
    assert str(error) == "a.b: no\n  seen: 1\n  allowed: 2\n  do: change it"
    assert error.exit_status == 2


def test_the_tree_in_the_docstring_is_the_tree():
    names = [line.split()[1] for line in errors.__doc__.splitlines() if line.strip().startswith(("├", "└"))]
    classes = [c.__name__ for c in errors.CarkpError.__subclasses__()]
    assert sorted(names) == sorted(classes)
