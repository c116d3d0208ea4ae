"""The compiled program beside the integer model on the camera's input."""

from __future__ import annotations

from pathlib import Path

import pytest
from npu_toys import Brighten, Normalize, ToTensor, toy_graph, toy_plugins, write_config

from carkp_core.alignment import Alignment, align_validation, before_tensor
from carkp_core.errors import BackendError, ConfigError
from carkp_core.programs import RefusedError
from carkp_core.session import open_session


def align(path: Path, march: str | None = None, count: int | None = None) -> Alignment:
    return align_validation(open_session(str(path), march=march, plugins=toy_plugins()), count)


def test_an_honest_program_differs_nowhere(tmp_path: Path) -> None:
    path = write_config(tmp_path, toy_graph())
    found = align(path)
    assert found.ok
    assert found.compiled_because
    assert found.to_json() == {
        "differing_elements": 0,
        "samples": 10,
        "metrics": {way: {"found": 1.0} for way in ("int_infer", "int_infer_nv12", "hbm")},
    }
    assert found.elements == 10 * 64
    assert align(path).compiled_because == ""


def test_every_differing_element_is_counted(tmp_path: Path) -> None:
    found = align(write_config(tmp_path, toy_graph("toy-faulty")), march="toy-faulty")
    assert not found.ok
    assert found.differing_elements == found.elements == 640


def test_the_plain_image_is_not_the_cameras(tmp_path: Path) -> None:
    # A red pixel is found by its V, which the camera spreads over a block of four pixels.
    graph = toy_graph()
    graph.nodes[0].op.weight[0, :, 0, 0] = (0, 0, 64)
    found = align(write_config(tmp_path, graph, "int_infer_predictor['data_loader']['dataset']['spot'] = 0\n"))
    assert found.ok
    assert found.metrics["int_infer"] == {"found": 1.0}
    assert found.metrics["int_infer_nv12"] == found.metrics["hbm"] != {"found": 1.0}


def test_samples_are_spread_over_the_data(tmp_path: Path) -> None:
    path = write_config(tmp_path, toy_graph())
    assert align(path, count=3).samples == 3
    assert align(path, count=99).samples == 10


def test_align_bpu_predictor_is_used_when_there_is_one(tmp_path: Path) -> None:
    extra = "align_bpu_predictor = dict(int_infer_predictor)\n"
    extra += "align_bpu_predictor['data_loader'] = dict(int_infer_predictor['data_loader'], dataset="
    extra += "dict(type=toys.Spots, transforms=transforms, count=4))\n"
    assert align(write_config(tmp_path, toy_graph(), extra)).samples == 4


def test_a_refused_network_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="refuses"):
        align(write_config(tmp_path, toy_graph(table=True)))


def test_an_input_that_no_camera_delivers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="not what a camera pipeline delivers"):
        align(write_config(tmp_path, toy_graph(scale=1 / 64)))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    extra = "int_infer_predictor['data_loader']['dataset']['size'] = 12\n"
    with pytest.raises((ConfigError, BackendError), match=r"size|12, 12|another type"):
        align(write_config(tmp_path, toy_graph(), extra))


def test_transforms_before_the_tensor_make_the_cameras_image() -> None:
    brighten = Brighten()
    assert before_tensor([brighten, ToTensor(), Normalize()]) == [brighten]
    with pytest.raises(ConfigError, match="no ToTensor"):
        before_tensor([brighten])
    with pytest.raises(ConfigError, match="made for RGB"):
        before_tensor([ToTensor(to_yuv=False)])
