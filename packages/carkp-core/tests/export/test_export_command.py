"""``carkp export-onnx`` on a config whose model is any importable callable."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from carkp_core.commands.export_onnx import deployed_state, export_session
from carkp_core.errors import CheckpointError, ConfigError
from carkp_core.ir import binary
from carkp_core.session import Session, open_session
from carkp_core.train.checkpoint import save_checkpoint

torch.set_num_threads(1)

CONFIG = """
import torch
task_name = "tiny"
ckpt_dir = {folder!r}
model = dict(type="torch.nn.Conv2d", in_channels=3, out_channels=2, kernel_size=3)
deploy_inputs = dict(img=torch.zeros(1, 3, 8, 8))
onnx_cfg = dict(opset=13, output_names=["heatmap"])
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(folder=str(tmp_path)))
    return open_session(str(config), stage="float")


def test_the_float_model_has_the_checkpoints_weights(session: Session) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export_session(session)
    weight = torch.randn(2, 3, 3, 3)
    state = {"weight": weight, "bias": torch.ones(2)}
    save_checkpoint(
        session.context.checkpoint("float"), {"format": 1, "stage": "float", "task": "tiny", "model": state}
    )
    exported = export_session(session)
    assert exported.path == session.context.ckpt_dir / "tiny-float.onnx"
    assert (exported.opset, exported.nodes) == (13, 2)
    model = onnx.load(exported.path)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert (stored["conv2d.weight"] == weight.numpy()).all()
    assert [output.name for output in model.graph.output] == ["heatmap"]


def test_the_integer_model_carries_its_digest(session: Session, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no integer model yet"):
        export_session(session, "int_infer")
    graph = session.fast_graph()
    binary.write(graph, session.context.graph_path())
    exported = export_session(session, "int_infer", tmp_path / "other" / "model.onnx")
    assert exported.agreement is not None
    assert (exported.agreement.images, exported.images) == (8, "random")
    assert exported.to_json()["onnxruntime"] == {
        "image_source": "random", "images": 8, "elements": 8 * 2 * 6 * 6,
        "differing": exported.agreement.differing, "beyond_one_step": 0,
        "largest_steps": int(exported.agreement.differing > 0),
    }  # fmt: skip
    model = onnx.load(exported.path)
    assert {entry.key: entry.value for entry in model.metadata_props}["digest"] == graph.digest()
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= {node.op_type for node in model.graph.node}


def test_an_unknown_key_is_named(session: Session) -> None:
    session.config["onnx_cfg"]["opsets"] = 13
    with pytest.raises(ConfigError, match="no key 'opsets'"):
        export_session(session)


def test_the_deployed_part_of_a_state_is_found() -> None:
    network = nn.Conv2d(3, 2, 1)
    state = {"network.weight": 1, "network.bias": 2, "loss.scale": 3}
    assert deployed_state(state, network) == {"weight": 1, "bias": 2}
    assert deployed_state({"weight": 1, "bias": 2}, network) == {"weight": 1, "bias": 2}
