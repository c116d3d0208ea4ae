"""The automatic choice of int16: most gained for the time, inside the budget, only what the march runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from byte_npu import bytes_context, context
from exact_networks import differing
from repair_nets import KeypointNet, TwoUnits, calibrate, float_outputs, images, lively, noise_share, prepared

from carkp_core.errors import ConfigError
from carkp_core.quant.convert import convert
from carkp_core.quant.network import QuantizedNetwork
from carkp_core.quant.repair.auto_int16 import AutoInt16


def chosen(x: torch.Tensor, **kwargs: Any) -> tuple[QuantizedNetwork, dict[str, Any]]:
    network = calibrate(prepared(lively(KeypointNet(), 4)), x)
    AutoInt16(context=bytes_context(), **kwargs).after_calibration(network, [(x,)])
    return network, network.repairs[0]


def test_the_budget_holds_and_the_error_falls() -> None:
    x = images(16)
    plain = calibrate(prepared(lively(KeypointNet(), 4)), x)
    wanted = float_outputs(plain, x)
    errors = [noise_share(plain, x, wanted)]
    for budget in (1.1, 1.5):
        network, report = chosen(x, latency_budget=budget)
        assert report["latency_ms_after"] <= budget * report["latency_ms_before"]
        assert report["tensors"]
        errors.append(noise_share(network, x, wanted))
        graph = convert(network, "net")
        assert differing(network, graph, x) == {}
        assert {n.name for n in graph.nodes if n.type.dtype == "int16"} == {t["tensor"] for t in report["tensors"]}
        assert report["refused"]["up"] == "up: int8_only"
    assert errors[2] < errors[1] < errors[0]
    fresh = prepared(lively(KeypointNet(), 4))
    fresh.load_state_dict(network.state_dict())
    assert convert(fresh, "net").digest() == graph.digest()


def test_without_room_nothing_is_chosen_and_nothing_is_changed() -> None:
    x = images(8)
    plain = calibrate(prepared(lively(KeypointNet(), 4)), x)
    network, report = chosen(x, latency_budget=1.0)
    assert report["tensors"] == []
    assert convert(network, "net").digest() == convert(plain, "net").digest()
    assert any("beyond the budget" in said for said in report["refused"].values())


def test_at_most_so_many_are_chosen() -> None:
    _, report = chosen(images(8), latency_budget=2.0, most=1)
    assert len(report["tensors"]) == 1


def test_an_output_in_another_unit_does_not_decide_the_choice() -> None:
    x = images(8)
    reports = []
    for unit in (1.0, 1000.0):
        network = calibrate(prepared(TwoUnits(unit)), x)
        AutoInt16(latency_budget=3.0, context=bytes_context()).after_calibration(network, [(x,)])
        reports.append(network.repairs[0])
    plain, loud = ([entry["tensor"] for entry in report["tensors"]] for report in reports)
    assert plain == loud
    assert "first" in loud  # which the loud output does not read
    assert reports[0]["output_sqnr_db_after"] == pytest.approx(reports[1]["output_sqnr_db_after"], abs=0.01)


def test_without_a_backend_it_says_what_to_do() -> None:
    x = images(2)
    network = calibrate(prepared(lively(KeypointNet(), 4)), x)
    with pytest.raises(ConfigError, match="asks a backend for latencies") as caught:
        AutoInt16(context=context()).after_calibration(network, [(x,)])
    assert "Int16(" in (caught.value.allowed or "")


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="latency_budget"):
        AutoInt16(0.9, context=context())
    with pytest.raises(ConfigError, match="candidates and samples"):
        AutoInt16(samples=0, context=context())
