"""The plugin manager: a value that knows what is installed, what it offers and what is wrong with it.

A plugin that raises on import, misspells a hook or breaks its signature becomes a ``Problem`` and is left out;
everything else keeps working. So is one whose distribution asks for another carkp-core. ``carkp plugins`` prints the
problems; ``CARKP_TRACE=1`` prints every hook call.
"""

from __future__ import annotations

import difflib
import importlib
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pluggy
from attrs import frozen

from carkp_core import __version__, hookspecs
from carkp_core.backend import Backend
from carkp_core.catalog import Catalog, Component
from carkp_core.commands import Command
from carkp_core.hook_trace import HookTrace

if TYPE_CHECKING:
    from carkp_core.operator import Operator

#: The entry-point group that plugins use.
GROUP = "carkp"

#: Core's own plugin modules, registered as any other.
BUILTIN = ("carkp_core.plugin",)

T = TypeVar("T", Component, Command, Backend, "Operator")


@frozen
class Problem:
    """Something wrong with a plugin: which distribution, what, and what to do."""

    provider: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.provider}: {self.what}; {self.remedy}"


class PluginManager(pluggy.PluginManager):
    """Pluggy's manager plus the distributions behind the plugins and the problems met."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.problems: list[Problem] = []
        self._providers: dict[str, str] = {}
        self._trace: HookTrace | None = None

    def trace_calls(self) -> None:
        """Print hook calls from now on."""
        self._trace = HookTrace()
        self.add_hookcall_monitoring(self._trace.before, self._trace.after)

    def add(self, name: str, provider: str, load: Callable[[], Any]) -> None:
        """Load and register a plugin; what goes wrong is kept as a problem."""
        try:
            plugin = load()
        except Exception as error:  # a plugin may raise anything; the rest of carkp must work
            what = f"plugin {name!r} cannot be imported ({type(error).__name__}: {error})"
            self.problems.append(Problem(provider, what, "update or uninstall the package"))
            return
        self._providers[name] = provider
        try:
            self.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self.get_plugin(name) is plugin:
                self.unregister(name=name)
            first_line = str(error).strip().splitlines()[-1]
            what = f"plugin {name!r} breaks a hook's contract ({first_line})"
            self.problems.append(Problem(provider, what, "correct the signature: see docs/hooks.md"))
            return
        self.problems.extend(self._misspelt_hooks(plugin, provider))

    def leave_out(self, name: str, provider: str, misfit: str) -> None:
        """Keep a plugin that was built for another core as a problem, without importing it."""
        what = f"plugin {name!r} was built for another core: it {misfit}"
        remedy = f"install versions that fit: pip install --upgrade {provider.split()[0]} carkp-core"
        self.problems.append(Problem(provider, what, remedy))

    def provider(self, name: str) -> str:
        """The distribution, with version, behind a plugin's name."""
        return self._providers.get(name, name)

    def _misspelt_hooks(self, plugin: Any, provider: str) -> Iterator[Problem]:
        known = [name for name in vars(hookspecs) if name.startswith("carkp_")]
        for caller in self.get_hookcallers(plugin) or ():
            if caller.spec is not None:
                continue
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin and not implementation.optionalhook:
                    close = difflib.get_close_matches(caller.name, known, n=1)
                    hint = f"; did you mean {close[0]!r}?" if close else ""
                    yield Problem(
                        provider, f"unknown hook {caller.name!r}{hint}", "correct the name: see docs/hooks.md"
                    )

    def collect(self, hook: str, kind: type[T]) -> tuple[T, ...]:
        """Every record of ``kind`` that plugins return from ``hook``, with its provider filled in."""
        return tuple(self._collect(hook, kind))

    def _collect(self, hook: str, kind: type[T]) -> Iterator[T]:
        for name, answer in self._answers(hook):
            provider = self.provider(name)
            for record in answer:
                if isinstance(record, kind):
                    yield attrs.evolve(record, provider=provider)
                else:
                    what = f"{hook} returned {record!r} where a {kind.__name__} belongs"
                    self._note(Problem(provider, what, "see docs/hooks.md"))

    def _answers(self, hook: str) -> Iterator[tuple[str, Any]]:
        """Each plugin's own answer, in order of registration; one that raises is noted and left out."""
        for implementation in getattr(self.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            try:
                answer = implementation.function()
                answer = answer if isinstance(answer, dict) else tuple(answer or ())
            except Exception as error:  # as on import: the rest of carkp must work
                what = f"{hook} raised {type(error).__name__}: {error}"
                self._note(Problem(self.provider(name), what, "update or uninstall the package"))
                continue
            if self._trace is not None:
                self._trace.answered(hook, name, self.provider(name), answer)
            yield name, answer

    def _note(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def catalog(self) -> Catalog:
        """Every component that plugins offer."""
        return Catalog(self.collect("carkp_components", Component))

    def commands(self) -> tuple[Command, ...]:
        """Every command; where two plugins offer one name, the first registered wins and a problem is noted."""
        first: dict[str, Command] = {}
        for command in self.collect("carkp_commands", Command):
            kept = first.setdefault(command.name, command)
            if kept is not command:
                what = f"command {command.name!r} is also offered by {kept.provider}, which is used"
                self._note(Problem(command.provider, what, "uninstall one of the packages"))
        return tuple(first.values())

    def backends(self) -> tuple[Backend, ...]:
        """Every NPU backend."""
        return self.collect("carkp_backends", Backend)

    def configs(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Shipped configs: name -> (provider, path) of every plugin that offers the name."""
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for name, answer in self._answers("carkp_configs"):
            for config, path in answer.items():
                found[config] = (*found.get(config, ()), (self.provider(name), str(path)))
        return found

    def operators(self) -> tuple[Operator, ...]:
        """Every operator record."""
        from carkp_core.operator import Operator

        return self.collect("carkp_operators", Operator)

    def check(self) -> tuple[Problem, ...]:
        """Ask every hook that only names things, look for clashes, and return all problems."""
        for name, found in self.catalog().clashes().items():
            providers = ", ".join(c.provider for c in found)
            what = f"component {name!r} is offered {len(found)} times"
            self._note(Problem(providers, what, "uninstall one, or use import paths in configs"))
        by_march: dict[str, list[str]] = {}
        for backend in self.backends():
            for march in backend.marches:
                by_march.setdefault(march, []).append(backend.provider)
        for march, providers_of in by_march.items():
            if len(providers_of) > 1:
                self._note(Problem(", ".join(providers_of), f"march {march!r} is offered twice", "uninstall one"))
        for name, offers in self.configs().items():
            if len(offers) > 1:
                what = f"config {name!r} is offered {len(offers)} times"
                self._note(Problem(", ".join(p for p, _ in offers), what, "use the file's path"))
        by_operator: dict[str, list[str]] = {}
        for operator in self.operators():
            by_operator.setdefault(operator.name, []).append(operator.provider)
        for name, providers_of in by_operator.items():
            if len(providers_of) > 1:
                what = f"operator {name!r} is offered {len(providers_of)} times"
                self._note(
                    Problem(", ".join(providers_of), what, "uninstall one: which of them is asked first is chance")
                )
        self.commands()
        return tuple(self.problems)

    def warn(self) -> None:
        """One line for all problems, as a warning."""
        if self.problems:
            warnings.warn(f"{len(self.problems)} plugin problem(s): run `carkp plugins`", stacklevel=2)


def plugin_manager(load_installed: bool = True, blocked: Collection[str] = ()) -> PluginManager:
    """Make a plugin manager. The environment is read here: with ``CARKP_TRACE=1`` it prints hook calls.

    Parameters
    ----------
    load_installed:
        Load what installed distributions offer in the entry-point group ``carkp``; else core alone.
    blocked:
        Entry-point names to leave out.
    """
    manager = PluginManager()
    if os.environ.get("CARKP_TRACE", "") not in ("", "0"):
        manager.trace_calls()
    for module in BUILTIN:
        manager.add("core", _label("carkp-core"), partial(importlib.import_module, module))
    if load_installed:
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
            if entry.name not in blocked:
                provider = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
                misfit = core_misfit(entry.dist.requires or ()) if entry.dist else ""
                if misfit:
                    manager.leave_out(entry.name, provider, misfit)
                else:
                    manager.add(entry.name, provider, entry.load)
    return manager


def core_misfit(requirements: Iterable[str], installed: str = "") -> str:
    """How a distribution's requirement of carkp-core differs from the core that runs; empty when it fits.

    >>> core_misfit(["numpy", "carkp-core==0.2.0"], installed="0.1.0")
    'asks for carkp-core==0.2.0, and 0.1.0 is installed'
    """
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requirements:
        if not text.replace("_", "-").lower().startswith("carkp-core"):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            return f"asks for {text!r}, which cannot be read"
        if wanted.name.replace("_", "-").lower() != "carkp-core":
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        have = installed or __version__
        if not wanted.specifier.contains(have, prereleases=True):
            return f"asks for carkp-core{wanted.specifier}, and {have} is installed"
    return ""


def _label(distribution: str) -> str:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution


def module_plugin(**implementations: Callable[..., Any]) -> ModuleType:
    """A plugin made of functions, for tests and notebooks: each becomes an implementation of its hook."""
    module = ModuleType("carkp_inline_plugin")
    for name, function in implementations.items():
        setattr(module, name, hookspecs.hookimpl(function))
    return module
