"""What quantization loses on a keypoint network, carkp's beside ONNX Runtime's and torchao's.

Run ``python -m benchmarks quantization`` or ``quantization=FOLDER``. Draws cars, trains a small network for each of
three seeds (the folder keeps both), and quantizes each in many ways from the same calibration images; the same test
crops score them. Then the network is broken on purpose, as depthwise networks break: a few channels are made 50 times
as large and what reads them 50 times smaller, which changes no float answer.

The first run takes an hour or two on two cores, a later one with the same folder a part of that. ``results.json`` and
``table.md`` are left in the folder.
"""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from benchmarks.quantization_material import Material, Score, in_child, make_data, material, score
from benchmarks.quantization_ways import calibrated_network, carkp_ways, onnxruntime_ways, torchao_ways

FOLDER = "tmp_models/quantization_benchmark"
SEEDS = (0, 1, 2)
FLOAT = "float"
#: Points that may be lost, mean over the seeds.
LIMITS = {"PCK@0.1": 0.1, "PCK@0.02": 1.0}
QAT_LIMIT = 0.05
BROKEN_FACTOR, BROKEN_CHANNELS = 50.0, 3
#: Blocks whose channels are scaled.
BROKEN_BLOCKS = (2, 5)

#: way -> seed -> its score, where it could be quantized.
Scores = dict[str, dict[int, Score]]


def run(folder: str = FOLDER) -> Iterator[str]:
    """A line for each way, then the verdicts, then the broken network."""
    torch.set_num_threads(1)
    place = Path(folder)
    make_data(place)
    scores: Scores = {}
    for seed in SEEDS:
        given = material(place, seed)
        for name, way in _ways(given).items():
            result = score(given, way)
            if isinstance(result, str):
                yield f"seed {seed}: {name}: not measured: {result}"
                if name == FLOAT:  # nothing to compare this seed's others with
                    break
                continue
            scores.setdefault(name, {})[seed] = result
            yield f"seed {seed}: {name}: {_one(result, scores[FLOAT][seed])}"
            _keep(place, scores)
    yield from _table(scores)
    yield from verdicts(scores)
    yield from _broken(material(place, SEEDS[0]))


def _ways(given: Material) -> dict[str, Callable[[Material], Any]]:
    floats: dict[str, Callable[[Material], Any]] = {FLOAT: lambda m: m.network}
    return floats | carkp_ways(given) | onnxruntime_ways() | torchao_ways()


def verdicts(scores: Scores) -> Iterator[str]:
    """Each target, and whether it was met."""
    if "carkp default" in scores:
        lost = losses(scores, "carkp default")
        for name, limit in LIMITS.items():
            mean = statistics.mean(lost[name])
            yield f"{_met(mean <= limit)}: carkp default loses {mean:.2f} points of {name}, at most {limit}"
        yield from _beside_peers(scores)
    if "carkp QAT" in scores:
        mean = statistics.mean(losses(scores, "carkp QAT")["PCK@0.1"])
        yield f"{_met(mean <= QAT_LIMIT)}: carkp QAT loses {mean:.2f} points of PCK@0.1, at most {QAT_LIMIT}"


def _beside_peers(scores: Scores) -> Iterator[str]:
    peers = [name for name in scores if not name.startswith("carkp") and name != FLOAT]
    for metric in LIMITS:
        lost = {name: losses(scores, name)[metric] for name in peers}
        if not lost:
            return
        best = min(lost, key=lambda name: statistics.mean(lost[name]))
        own = losses(scores, "carkp default")[metric]
        behind = statistics.mean(own) - statistics.mean(lost[best])
        allowed = max(spread(own), spread(lost[best]))
        yield (
            f"{_met(behind <= allowed)}: carkp default is {behind:+.2f} points of {metric} behind the best peer"
            f" ({best}), the larger spread is {allowed:.2f}"
        )


def losses(scores: Scores, way: str) -> dict[str, list[float]]:
    """Points lost against each seed's float model, by metric; negative where quantizing gained."""
    pairs = [(scores[FLOAT][seed], score) for seed, score in scores[way].items()]
    return {name: [100 * (a.pck[name] - b.pck[name]) for a, b in pairs] for name in ("PCK@0.02", "PCK@0.05", "PCK@0.1")}


def spread(values: Sequence[float]) -> float:
    """Greatest minus least."""
    return max(values) - min(values)


def _broken(given: Material) -> Iterator[str]:
    """The default flow, one without repair and ONNX Runtime's best known setting on a network with uneven channels."""
    names, network = broken(given.network)
    damaged = attrs.evolve(given, network=network)
    ways = carkp_ways(given)
    peers = onnxruntime_ways()
    compared = {
        FLOAT: lambda m: m.network,
        "carkp default": ways["carkp default"],
        "carkp min_max, no repair": ways["carkp min_max, no repair"],
        "ONNX Runtime min-max, uint8": peers["ONNX Runtime min-max, uint8"],
    }
    yield f"broken on purpose: {BROKEN_CHANNELS} channels of {', '.join(names)} times {BROKEN_FACTOR:g}"
    floats: Score | None = None
    for name, way in compared.items():
        result = score(damaged, way)
        if isinstance(result, str):
            yield f"broken: {name}: not measured: {result}"
            continue
        floats = floats or result
        yield f"broken: {name}: {_one(result, floats)}"
    yield f"broken: {in_child(partial(_report_finds, damaged, names))}"


def broken(network: nn.Module) -> tuple[list[str], nn.Module]:
    """A network with the same answers, some channels of which are ``BROKEN_FACTOR`` times as large; and where.

    In inverted residual blocks: the expansion's batch norm is scaled up, the depthwise weights down; ReLU lets a
    positive factor through.
    """
    made = copy.deepcopy(network)
    modules = dict(made.named_modules())
    depthwise = [n for n, m in modules.items() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    order = [n for n, m in modules.items() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    found = []
    for block in BROKEN_BLOCKS:
        name = depthwise[block]
        before = order[order.index(name) - 1]
        norm, conv = modules[before], modules[name]
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(conv, nn.Conv2d)
        with torch.no_grad():
            # Channels that speak: a dead one would hide the damage.
            channels = norm.weight.abs().argsort(descending=True)[:BROKEN_CHANNELS]
            norm.weight[channels] *= BROKEN_FACTOR
            norm.bias[channels] *= BROKEN_FACTOR
            conv.weight[channels] /= BROKEN_FACTOR
        found.append(order[order.index(before) - 1])
    return found, made


def _report_finds(given: Material, names: Sequence[str]) -> str:
    """Whether the report's ranking names the scaled layers, calibrated without repair."""
    from carkp_core.quant.sensitivity import sensitivity, worst_layers

    network = calibrated_network(given, ("min_max", {}), [])
    found = worst_layers(sensitivity(network, [(batch,) for batch in given.test[:64].split(32)]))
    places = {name: next((i for i, layer in enumerate(found, 1) if name in layer), None) for name in names}
    said = ", ".join(f"{name} at place {place or 'none'}" for name, place in places.items())
    return f"the report ranks {len(found)} layers: {said}; its first are {', '.join(found[:3])}"


def _table(scores: Scores) -> Iterator[str]:
    """Markdown rows: points lost, mean over the seeds and (greatest minus least)."""
    yield "| way | PCK@0.1 | lost @0.1 | lost @0.05 | lost @0.02 | mean distance, px | seconds | MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, by_seed in scores.items():
        lost, results = losses(scores, name), by_seed.values()
        cells = [f"{100 * statistics.mean(r.pck['PCK@0.1'] for r in results):.2f}"]
        cells += [
            f"{statistics.mean(lost[key]):.2f} ({spread(lost[key]):.2f})" for key in ("PCK@0.1", "PCK@0.05", "PCK@0.02")
        ]
        cells += [
            f"{statistics.mean(getattr(r, key) for r in results):{form}}"
            for key, form in (("mean_dist", ".3f"), ("seconds", ".1f"), ("peak_mb", ".0f"))
        ]
        yield f"| {' | '.join([name, *cells])} |"


def _one(result: Score, floats: Score) -> str:
    lost = ", ".join(
        f"{name} {100 * v:.2f} (lost {100 * (floats.pck[name] - v):+.2f})" for name, v in result.pck.items()
    )
    work = f"{result.seconds:.1f} s, {result.peak_mb:.0f} MB"
    return f"{lost}, mean distance {result.mean_dist:.3f} px, {work}{result.note and '; ' + result.note}"


def _keep(folder: Path, scores: Scores) -> None:
    plain = {name: {seed: attrs.asdict(result) for seed, result in found.items()} for name, found in scores.items()}
    (folder / "results.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    (folder / "table.md").write_text("\n".join(_table(scores)) + "\n", encoding="utf-8")


def _met(flag: bool) -> str:
    return "met" if flag else "MISSED"
