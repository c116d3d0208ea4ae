"""The check of a whole graph: a verdict for each node, every violation, and the segments that remain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from carkp_bpu.checker.rule import Rule, Site
from carkp_bpu.checker.rule import rule as rule_of
from carkp_bpu.checker.rules import RULES
from carkp_bpu.checker.rules.tensors import runs_on_cpu
from carkp_bpu.expand import CORE_KINDS, expanded
from carkp_bpu.march import find_march
from carkp_bpu.march.base import March
from carkp_bpu.operator import BpuOperator
from carkp_core.backend import CheckReport, NodeVerdict, Verdict, Violation
from carkp_core.ir.graph import Graph, Node, TensorType

Types = Mapping[str, TensorType]


def check(graph: Graph, march: str | March, extra: Sequence[BpuOperator] = ()) -> CheckReport:
    """Judge every node of a graph.

    Parameters
    ----------
    graph:
        The integer model, normalised as core's converter leaves it.
    march:
        The march's name or table.
    extra:
        Operators of plugins.

    Returns
    -------
    CheckReport
        One verdict for each node in execution order, and every rule that any node breaks. A node that breaks a
        rule is left to the CPU or rejected; rejection wins.
    """
    table = find_march(march) if isinstance(march, str) else march
    known = {operator.kind: operator for operator in extra}
    types = graph.types()
    verdicts: dict[str, Verdict] = {}
    violations: list[Violation] = []
    for site in _sites(graph, table, verdicts):
        broken = _broken(site, known, types)
        verdicts[site.node.name] = _verdict(site.node, broken)
        violations += [violation for _, violation in broken]
    violations += _graph_violations(graph, table)
    segments = _segments(graph, verdicts)
    nodes = tuple(
        NodeVerdict(node.name, node.op.kind, verdicts[node.name], str(node.source), segments.get(node.name))
        for node in graph.nodes
    )
    return CheckReport(table.name, nodes, tuple(violations))


def _sites(graph: Graph, march: March, verdicts: dict[str, Verdict]) -> Iterator[Site]:
    """Each node with what rules may look at. Reads the verdicts of the nodes before it."""
    types, users = graph.types(), graph.users()
    constants = {node.name for node in graph.nodes if node.op.kind == "constant"}
    for node in graph.nodes:
        yield Site(
            node=node,
            inputs=tuple(types[name] for name in node.inputs),
            constant=tuple(name in constants for name in node.inputs),
            off_npu=tuple(verdicts.get(name, "NPU") != "NPU" for name in node.inputs),
            tail=node.name in graph.outputs and not users[node.name],
            march=march,
        )


def _broken(site: Site, known: Mapping[str, BpuOperator], types: Types) -> list[tuple[Rule | None, Violation]]:
    kind = site.op.kind
    if kind in CORE_KINDS:
        return _broken_rules(site, [rule for rule in RULES if rule.concerns(kind)])
    if kind not in known:
        return [(None, _unknown(site))]
    operator = known[kind]
    rules = (*(rule for rule in RULES if rule.concerns(kind)), *operator.load_rules())
    broken = _broken_rules(site, rules)
    if broken:
        return broken
    if not operator.expand:
        return _broken_rules(site, [machine_form])
    return [found for part in _parts(site, operator, types) for found in _broken_part(site, part)]


def _broken_rules(site: Site, rules: Iterable[Rule]) -> list[tuple[Rule | None, Violation]]:
    if site.op.kind == "opaque":
        # Nothing is known of it but its shape.
        rules = [rule for rule in rules if rule.name == "integer_form"]
    broken: list[tuple[Rule | None, Violation]] = []
    for rule in rules:
        seen = rule.check(site)
        if seen is not None:
            broken.append((rule, _violation(rule, site, seen)))
    return broken


def _broken_part(site: Site, part: Site) -> Iterator[tuple[Rule | None, Violation]]:
    """What a node of an expansion breaks, in the name of the plugin's node."""
    rules = [rule for rule in RULES if rule.concerns(part.op.kind)]
    for rule, violation in _broken_rules(part, rules):
        seen = f"{violation.seen} (the {part.op.kind} that {site.op.kind} becomes)"
        yield rule, attrs.evolve(violation, node=site.node.name, seen=seen)


def _parts(site: Site, operator: BpuOperator, types: Types) -> Iterator[Site]:
    """The nodes of an expansion, where the march's rules look at them."""
    parts = expanded(site.node, types, operator)
    outside = dict(zip(site.node.inputs, zip(site.inputs, site.constant, site.off_npu, strict=True), strict=True))
    inside = {part.name: (part.type, part.op.kind == "constant", False) for part in parts}
    for part in parts:
        facts = [outside[name] if name in outside else inside[name] for name in part.inputs]
        tail = site.tail and part is parts[-1]
        types_of, constant, off_npu = (tuple(fact[column] for fact in facts) for column in range(3))
        yield Site(part, types_of, constant, off_npu, tail, site.march)  # type: ignore[arg-type]


@rule_of(
    "*",
    allowed="an operator whose plugin writes it in the machine's own",
    remedy="give the plugin's BpuOperator an `expand`, or keep the operator off this march",
)
def machine_form(site: Site) -> str | None:
    """A plugin's operator has a machine form."""
    return f"operator {site.op.kind!r} has none"


def _violation(rule: Rule, site: Site, seen: str) -> Violation:
    node, allowed = site.node, rule.allowed(site.march) or "not on this march"
    return Violation(rule.name, node.name, str(node.source), seen, allowed, rule.remedy)


def _unknown(site: Site) -> Violation:
    return Violation(
        rule="operator_known",
        node=site.node.name,
        source=str(site.node.source),
        seen=f"operator {site.op.kind!r}",
        allowed="core's operators and those of a plugin with carkp_bpu_operators",
        remedy="install or extend the plugin that offers the operator, so that it names the BPU's rules for it",
    )


def _verdict(node: Node, broken: list[tuple[Rule | None, Violation]]) -> Verdict:
    if not broken:
        return "NPU"
    if node.op.kind == "opaque":
        return "CPU" if runs_on_cpu(node.op.target) else "rejected"  # type: ignore[attr-defined]
    return "rejected" if any(rule is None or rule.otherwise == "rejected" for rule, _ in broken) else "CPU"


def _graph_violations(graph: Graph, march: March) -> list[Violation]:
    """The limit that concerns no node: how many inputs and outputs a graph has."""
    limit, most = march.tensor.graph_ends.value, max(len(graph.inputs), len(graph.outputs))
    if limit is None or most <= limit:
        return []
    seen, allowed = f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs", f"at most {limit} of each"
    return [Violation("graph_ends", graph.name, "", seen, allowed, "split the model")]


def _segments(graph: Graph, verdicts: dict[str, Verdict]) -> dict[str, int]:
    """Number the NPU segments that the other nodes leave: a node's segment lies behind those of its CPU inputs.

    Constants belong to the segment of their first reader.
    """
    depth: dict[str, int] = {graph_input.name: 0 for graph_input in graph.inputs}
    constants = {node.name for node in graph.nodes if node.op.kind == "constant"}
    on_npu = {name for name, verdict in verdicts.items() if verdict == "NPU"}
    for node in graph.nodes:
        into = [depth[name] + (name in verdicts and name not in on_npu) for name in node.inputs]
        depth[node.name] = max(into, default=0)
    levels = sorted({depth[name] for name in on_npu - constants})
    number = {level: index for index, level in enumerate(levels)}
    found = {name: number[depth[name]] for name in on_npu - constants}
    for node in reversed(graph.nodes):
        for name in node.inputs:
            if name in constants and node.name in found:
                found[name] = found[node.name]
    return found
