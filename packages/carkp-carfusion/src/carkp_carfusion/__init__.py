"""CarFusion for carkp: data, generator, network, metrics, drawing and shipped configs."""

__version__ = "0.1.0"
