"""`check_backbone`: does a network train, quantize and run as a carkp backbone?

Legend: ``N`` batch, ``C H W`` as usual.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carkp_core.context import Context
from carkp_core.ir import operators as ir
from carkp_core.ir.graph import Graph
from carkp_core.plugins import PluginManager
from carkp_core.testing.findings import Findings
from carkp_core.testing.integers import check_on_march, plain_context


def check_backbone(
    backbone: nn.Module,
    image_hw: tuple[int, int] = (64, 64),
    channels: int = 3,
    marches: Sequence[str] = (),
    plugins: PluginManager | None = None,
) -> Graph:
    """Hold a backbone to all that carkp asks of one.

    It maps an image [N, C, H, W] to a tensor or a sequence of feature maps; samples do not touch each other; every
    parameter gets a gradient; it can be copied; it can be traced and quantized; where ``feature_info`` tells channels
    and strides, they are true; and each of ``marches`` runs all of it, to the last bit.

    Parameters
    ----------
    image_hw, channels:
        Size of the images.
    marches:
        Marches that must run it.
    plugins:
        By default the installed ones.

    Returns
    -------
    Graph
        The integer model from random calibration, to look at.

    Raises
    ------
    CheckFailed
        With every finding.
    """
    found = Findings(f"backbone {type(backbone).__name__}")
    image = torch.rand((2, channels, *image_hw), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with found.step("forward", "a backbone is called with images [N, C, H, W]", "run it on one image and look"):
        _check_features(found, backbone, image)
    found.raise_if_any()
    with found.step("training", "every process of a training run needs all gradients", "run one step by hand"):
        _check_gradients(found, backbone, image)
    with found.step("copying", "each stage and each process works on a copy", "hold no open files or generators"):
        copy.deepcopy(backbone).load_state_dict(backbone.state_dict(), strict=True)
    graph = None
    remedy = "see docs/quantization.md for what can be traced, or register an operator (docs/write-a-plugin.md)"
    with found.step("tracing and quantizing", "without a graph there is no integer model", remedy):
        graph = _quantize(found, backbone, image[:1], plain_context(next(iter(marches), ""), plugins))
    if graph is not None and not found.found:
        for march in marches:
            with found.step(f"march {march}", "it was asked to run the backbone", "see the message"):
                check_on_march(found, graph, plain_context(march, plugins).backend(), march)
    found.raise_if_any()
    assert graph is not None
    return graph


def features(value: Any) -> list[Tensor]:
    """A network's answer as a list of tensors."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_features(found: Findings, backbone: nn.Module, image: Tensor) -> None:
    backbone.eval()
    with torch.no_grad():
        maps, alone, again = features(backbone(image)), features(backbone(image[:1])), features(backbone(image))
    kinds = {type(m).__name__ for m in maps if not isinstance(m, Tensor)}
    if not found.expect(
        not kinds and bool(maps), f"forward returns {', '.join(sorted(kinds)) or 'nothing'}",
        "heads take feature maps by index", "return a tensor, or a list or tuple of tensors",
    ):  # fmt: skip
        return
    for index, (whole, one, other) in enumerate(zip(maps, alone, again, strict=True)):
        found.expect(
            whole.is_floating_point() and whole.shape[0] == image.shape[0],
            f"feature map {index} is {whole.dtype} of shape {tuple(whole.shape)} for images {tuple(image.shape)}",
            "feature maps are floats with the batch in front", "return [N, C, h, w]",
        )  # fmt: skip
        found.expect(
            torch.equal(whole, other), f"feature map {index} differs between two calls in evaluation mode",
            "an integer model cannot draw random numbers", "make dropout and noise depend on self.training",
        )  # fmt: skip
        found.expect(
            whole[:1].shape == one.shape and torch.allclose(whole[:1], one, rtol=1e-3, atol=1e-4),
            f"feature map {index} of an image depends on the other images of its batch",
            "the deployed network sees one image at a time", "use batch norm's running statistics; index dimensions",
        )  # fmt: skip
    _check_info(found, backbone, image, maps)


def _check_info(found: Findings, backbone: nn.Module, image: Tensor, maps: list[Tensor]) -> None:
    info: Any = getattr(backbone, "feature_info", None)
    if info is None:
        return
    why, remedy = "a head's channels are checked against feature_info", "correct feature_info"
    if not found.expect(
        len(info) == len(maps), f"feature_info tells of {len(info)} maps, not {len(maps)}", why, remedy
    ):
        return
    for index, (told, made) in enumerate(zip(info, maps, strict=True)):
        stride = -(-image.shape[2] // made.shape[2]) if made.ndim == 4 else 0
        seen = (int(made.shape[1]), stride)
        found.expect(
            (told.channels, told.stride) == seen,
            f"feature_info says {told.channels} channels at stride {told.stride} for map {index}; "
            f"it has {seen[0]} at stride {seen[1]}",
            why, remedy,
        )  # fmt: skip


def _check_gradients(found: Findings, backbone: nn.Module, image: Tensor) -> None:
    trained = copy.deepcopy(backbone).train()
    sum(m.square().mean() for m in features(trained(image))).backward()  # type: ignore[union-attr]
    idle = [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None]
    found.expect(
        not idle, f"no gradient reaches {', '.join(idle[:5])}{' ...' if len(idle) > 5 else ''}",
        "distributed training waits for every parameter's gradient",
        "leave the parameters out, or freeze them with requires_grad_(False)",
    )  # fmt: skip


def _quantize(found: Findings, backbone: nn.Module, image: Tensor, context: Context) -> Graph:
    from carkp_core.quant.fast import fast_graph

    graph = fast_graph(backbone.eval(), {"img": image}, context, type(backbone).__name__)
    for node in graph.nodes:
        if isinstance(node.op, ir.Opaque):
            found.add(
                f"{node.op.target} at {node.source or node.name} has no integer form",
                "an integer model and a compiled program can only hold operators with integer arithmetic",
                "replace it by supported operators (docs/operators.md), or register an operator for it",
            )
    return graph
