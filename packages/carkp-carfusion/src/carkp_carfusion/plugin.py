"""What carkp-carfusion offers, by name; everything is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from carkp_core.catalog import Component
from carkp_core.commands import Command
from carkp_core.hookspecs import hookimpl

_CONFIGS = Path(__file__).parent / "configs"

COMPONENTS = (
    Component("backbone", "efficientnet", "carkp_carfusion.models.efficientnet:efficientnet"),
    Component("head", "DeconvDecoder", "carkp_carfusion.models.deconv_decoder:DeconvDecoder"),
    Component("model", "HeatmapKeypointModel", "carkp_carfusion.models.heatmap_keypoint:HeatmapKeypointModel"),
    Component("loss", "MSELoss", "carkp_carfusion.models.loss:MSELoss"),
    Component("post_process", "HeatmapDecoder", "carkp_carfusion.models.heatmap_codec:HeatmapDecoder"),
    Component("dataset", "CarfusionPackData", "carkp_carfusion.data.dataset:CarfusionPackData"),
    Component("transform", "RandomFlip", "carkp_carfusion.data.transforms:RandomFlip"),
    Component("transform", "Resize", "carkp_carfusion.data.transforms:Resize"),
    Component("transform", "RandomPadLdmkData", "carkp_carfusion.data.transforms:RandomPadLdmkData"),
    Component("transform", "AddGaussianNoise", "carkp_carfusion.data.transforms:AddGaussianNoise"),
    Component("transform", "GenerateHeatmapTarget", "carkp_carfusion.data.transforms:GenerateHeatmapTarget"),
    Component("transform", "ToTensor", "carkp_carfusion.data.transforms:ToTensor"),
    Component("transform", "Normalize", "carkp_carfusion.data.transforms:Normalize"),
    Component("collate", "collate_2d", "carkp_carfusion.data.collate:collate_2d"),
    Component("metric", "PCKMetric", "carkp_carfusion.metrics:PCKMetric"),
    Component("metric", "MeanKeypointDist", "carkp_carfusion.metrics:MeanKeypointDist"),
    Component("metric", "KeypointReport", "carkp_carfusion.metrics:KeypointReport"),
    Component("callback", "KeypointsViz", "carkp_carfusion.keypoints_viz:KeypointsViz"),
    Component("converter", "pretrained:efficientnet_lite0", "carkp_carfusion.models.pretrained:efficientnet_lite0"),
    Component(
        "converter", "pretrained:efficientnet_lite0_rgb", "carkp_carfusion.models.pretrained:efficientnet_lite0_rgb"
    ),
    Component("post_process", "KeypointInference", "carkp_carfusion.infer:KeypointInference"),
)

COMMANDS = (
    Command(
        "synth-carfusion",
        "carkp_carfusion.commands.synth_carfusion:synth_carfusion",
        "Draw a data set in the raw CarFusion layout.",
    ),
    Command(
        "gen-carfusion-data",
        "carkp_carfusion.commands.gen_carfusion_data:gen_carfusion_data",
        "Crop cars out of raw CarFusion frames.",
    ),
    Command(
        "carfusion-packer",
        "carkp_carfusion.commands.carfusion_packer:carfusion_packer",
        "Pack cropped cars into LMDB.",
    ),
    Command("view", "carkp_carfusion.commands.view:view", "Draw a sheet of samples with their keypoints."),
    Command(
        "quickstart", "carkp_carfusion.commands.quickstart:quickstart", "Run the whole workflow on generated data."
    ),
)


@hookimpl
def carkp_components() -> Iterable[Component]:
    return COMPONENTS


@hookimpl
def carkp_configs() -> Mapping[str, str]:
    return {path.stem: str(path) for path in sorted(_CONFIGS.glob("*.py"))}


@hookimpl
def carkp_commands() -> Iterable[Command]:
    return COMMANDS
