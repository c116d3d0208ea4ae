"""Names that carkp's own other packages offer, so that a message can say which one is missing.

Only messages read this; what is installed is asked of the plugin manager.
"""

from __future__ import annotations

#: Distribution -> names of components, configs and commands.
OFFERS: dict[str, tuple[str, ...]] = {
    "carkp-carfusion": (
        "efficientnet", "DeconvDecoder", "HeatmapKeypointModel", "MSELoss", "HeatmapDecoder", "KeypointInference",
        "CarfusionPackData", "RandomFlip", "Resize", "RandomPadLdmkData", "AddGaussianNoise", "GenerateHeatmapTarget",
        "ToTensor", "Normalize", "collate_2d", "PCKMetric", "MeanKeypointDist", "KeypointReport", "KeypointsViz",
        "pretrained:efficientnet_lite0", "pretrained:efficientnet_lite0_rgb",
        "keypoint_efficientnetb0_carfusion",
        "synth-carfusion", "gen-carfusion-data", "carfusion-packer", "view", "quickstart",
    ),
    "carkp-bpu": ("hbm",),
}  # fmt: skip


def installation_of(name: str) -> str:
    """The command that installs what offers a name; empty when nothing known does.

    >>> installation_of("hbm")
    'pip install carkp-bpu'
    """
    return next((f"pip install {package}" for package, names in OFFERS.items() if name in names), "")
