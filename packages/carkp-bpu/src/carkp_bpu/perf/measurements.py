"""Published board measurements that the performance model's constants are fitted to."""

from __future__ import annotations

from attrs import frozen


@frozen
class Measurement:
    """One published row. ``fps`` is of one core at saturation; ``thread_ms`` is one frame alone, or None.

    Rows with ``held_out`` take no part in the fit of the constants. They were in view when the model's form and the
    array's geometry were chosen, so they are a check, not an untouched validation set.
    """

    march: str
    network: str
    fps: float
    thread_ms: float | None = None
    held_out: bool = False

    @property
    def device_ms(self) -> float:
        """Time of a frame at saturation."""
        return 1000.0 / self.fps


#: X5: the vendor's model zoo, 224x224, one core. X3: the vendor's table, 224x224, halved for one of two cores.
#: J5: the vendor's tutorial for this keypoint network, 128x128, halved.
MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement("bayes-e", "MobileNetV1", 1356, 1.27),
    Measurement("bayes-e", "MobileNetV2", 1152, 1.42),
    Measurement("bayes-e", "ResNet18", 449, 2.95),
    Measurement("bayes-e", "MobileOne-S0", 2453, 0.80),
    Measurement("bayes-e", "MobileOne-S2", 654, 2.11, held_out=True),
    Measurement("bayes-e", "MobileOne-S4", 257, 4.58),
    Measurement("bayes-e", "RepVGG-A0", 758, 1.85),
    Measurement("bayes-e", "RepVGG-A2", 186, 6.07),
    Measurement("bayes-e", "FasterNet-T0", 1135, 1.41),
    Measurement("bayes-e", "FasterNet-T2", 342, 3.39, held_out=True),
    Measurement("bayes-e", "EfficientNet-B2", 377, 3.31),
    Measurement("bernoulli2", "ResNet18", 233 / 2),
    Measurement("bernoulli2", "MobileNetV2", 891 / 2),
    Measurement("bernoulli2", "GoogLeNet", 244 / 2),
    Measurement("bayes", "EfficientNet-B0 keypoints", 3290 / 2, 0.887),
)
