"""``carkp export-onnx``: the network of a stage as an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen
from rich.console import Console
from rich.markup import escape

from carkp_core.cli_options import config_options, write_json
from carkp_core.errors import ConfigError

if TYPE_CHECKING:
    from carkp_core.export.onnx_check import Agreement
    from carkp_core.ir.graph import Graph
    from carkp_core.session import Session

STAGES = ("float", "int_infer")

#: Images that an exported integer model is run on, where ONNX Runtime is installed.
CHECKED_IMAGES = 8

#: What ``onnx_cfg`` may hold.
ONNX_KEYS = ("path", "opset", "name", "output_names")


@frozen
class Exported:
    """A written ONNX file."""

    path: Path
    stage: str
    opset: int
    nodes: int
    sha256: str
    #: The runtime's outputs beside the integer model's, and which images it was run on.
    agreement: Agreement | None = None
    images: str = ""

    def to_json(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "onnx": str(self.path),
            "stage": self.stage,
            "opset": self.opset,
            "nodes": self.nodes,
            "sha256": self.sha256,
            "onnxruntime": None
            if self.agreement is None
            else {"image_source": self.images, **self.agreement.to_json()},
        }


@click.command("export-onnx")
@click.option("--stage", type=click.Choice(STAGES), default="float", show_default=True, help="Which model to export.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=None, help="The file; by default in ckpt_dir."
)
@config_options
@click.pass_context
def export_onnx(
    ctx: click.Context,
    config: str,
    march: str | None,
    opts: tuple[str, ...],
    json_path: Path | None,
    stage: str,
    output: Path | None,
) -> None:
    """Export a trained model to ONNX, static shapes, NCHW.

    The float model is written with batch norm folded. The integer model is written in QuantizeLinear and
    DequantizeLinear form, with the integers' own scales; where onnxruntime is installed, it is run on some images and
    the output elements that differ from the integer model's are counted.
    """
    from carkp_core.session import open_session

    session = open_session(config, opts, march, stage=stage, plugins=ctx.obj)
    exported = export_session(session, stage, output)
    console = Console()
    console.print(f"onnx:   {escape(str(exported.path))}", soft_wrap=True)
    console.print(f"sha256: {exported.sha256}", soft_wrap=True)
    console.print(f"{exported.stage}, opset {exported.opset}, {exported.nodes} nodes", highlight=False)
    if exported.agreement is not None:
        console.print(_agreement_line(exported.agreement, exported.images), highlight=False)
    write_json(json_path, exported.to_json())


def export_session(session: Session, stage: str = "float", output: Path | None = None) -> Exported:
    """Export the float network with its best weights, or the integer model.

    Raises
    ------
    CheckpointError
        When the stage was not run yet.
    ConfigError
        When ``onnx_cfg`` has an unknown key.
    """
    from carkp_core.export.onnx_builder import save

    settings = _settings(session)
    path = output or Path(settings.get("path") or session.context.ckpt_dir / f"{session.context.task}-{stage}.onnx")
    graph = None if stage == "float" else session.integer_graph()
    model = _float_model(session, settings) if graph is None else _integer_model(graph, settings)
    save(model, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    agreement, images = (None, "") if graph is None else _agreement(session, graph, model)
    return Exported(path, stage, model.opset_import[0].version, len(model.graph.node), digest, agreement, images)


def _float_model(session: Session, settings: Mapping[str, Any]) -> Any:
    from carkp_core.export.onnx_float import DEFAULT_OPSET, export_float
    from carkp_core.train.checkpoint import load_state, origin_of, read_checkpoint

    network, inputs = session.deploy()
    path = session.context.checkpoint("float")
    payload = read_checkpoint(path, session.context.config_name)
    load_state(network, deployed_state(payload["model"], network), where=str(path), origin=origin_of(payload))
    return export_float(
        network,
        inputs,
        name=str(settings.get("name") or session.context.task),
        opset=int(settings.get("opset") or DEFAULT_OPSET),
        output_names=tuple(settings.get("output_names") or ()),
        context=session.context,
    )


def _integer_model(graph: Graph, settings: Mapping[str, Any]) -> Any:
    from carkp_core.export.onnx_qdq import export_qdq

    return export_qdq(graph, opset=settings.get("opset"), output_names=tuple(settings.get("output_names") or ()))


def _agreement(session: Session, graph: Graph, model: Any) -> tuple[Agreement | None, str]:
    """The export in the runtime on validation images, on random ones where there are none; None without a runtime."""
    from carkp_core.export.onnx_check import check_network, runtime_available
    from carkp_core.quant.converters import integer_network

    if not runtime_available():
        return None, ""
    inputs, source = _checked_inputs(session, graph)
    return check_network(graph, model, inputs, integer_network(graph, session.context).execute), source


def _checked_inputs(session: Session, graph: Graph) -> tuple[dict[str, Any], str]:
    import numpy as np

    from carkp_core.compare.samples import validation_samples
    from carkp_core.errors import CarkpError
    from carkp_core.ir.arithmetic import INT_RANGE, quantize

    names = [declared.name for declared in graph.inputs]
    try:
        samples = validation_samples(session, "int_infer", names, CHECKED_IMAGES)
        ((_, images),) = samples.batches(CHECKED_IMAGES)
    except CarkpError:
        rng = np.random.default_rng(session.context.seed)
        made = {}
        for declared in graph.inputs:
            low, high = INT_RANGE[declared.type.dtype]
            values = rng.integers(low, high + 1, (CHECKED_IMAGES, *declared.type.shape[1:]))
            made[declared.name] = values.astype(declared.type.dtype)
        return made, "random"
    pairs = zip(graph.inputs, images, strict=True)
    return {i.name: quantize(image.numpy(), i.type.scale, i.type.dtype) for i, image in pairs}, "validation"


def _agreement_line(agreement: Agreement, images: str) -> str:
    return (
        f"in ONNX Runtime {agreement.differing} of {agreement.elements} output elements differ from the integer"
        f" model's on {agreement.images} {images} images, {agreement.beyond_one_step} of them by more than a step"
    )


def deployed_state(state: Mapping[str, Any], network: Any) -> dict[str, Any]:
    """The deployed network's part of a model's state: what stands under ``network.``, or all of it."""
    prefix = "network."
    own = set(network.state_dict())
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside if inside and own & set(inside) else dict(state)


def _settings(session: Session) -> dict[str, Any]:
    given = dict(session.config.get("onnx_cfg") or {})
    for key in given:
        if key not in ONNX_KEYS:
            raise ConfigError(f"onnx_cfg has no key {key!r}", where="onnx_cfg", allowed=", ".join(ONNX_KEYS))
    return given
