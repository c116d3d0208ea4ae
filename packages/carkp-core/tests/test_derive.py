from __future__ import annotations

import pytest

from carkp_core import derive

TRANSFORMS = [dict(type="Resize", img_scale=(48, 64)), dict(type="Normalize", mean=128.0, std=64.0)]
LOADER = dict(type="x.DataLoader", dataset=dict(type="D", transforms=TRANSFORMS))
VALIDATION = dict(type="Validation", data_loader=LOADER, batch_processor="P")
CONVERTERS = [dict(type="LoadCheckpoint", checkpoint_path="a"), dict(type="Float2Calibration")]


def trainer(**changes):
    pipeline = dict(type="ModelConvertPipeline", qat_mode="fuse_bn", converters=CONVERTERS)
    node = dict(type="Calibrator", model="M", model_convert_pipeline=pipeline, callbacks=[VALIDATION], num_steps=3)
    return node | dict(val_metrics=["m"], batch_processor="P", data_loader="L") | changes


@pytest.mark.parametrize("target", ["Resize", "package.module.Resize", "package.module:Resize"])
def test_type_names_have_many_forms(target):
    assert derive.type_name(dict(type=target)) == "Resize"


def test_type_name_of_objects_and_others():
    assert derive.type_name(dict(type=dict)) == "dict"
    assert derive.type_name("Resize") == ""


def test_integer_trainer_keeps_structure_loads_and_converts():
    node = derive.integer_trainer(dict(calibration_trainer=trainer()), "calibration")
    names = [derive.type_name(c) for c in node["model_convert_pipeline"]["converters"]]
    assert names == ["Float2Calibration", "LoadStage", "QAT2Quantize"]
    assert node["model_convert_pipeline"]["qat_mode"] == "fuse_bn"
    assert node["type"] == "IntegerTrainer"
    assert "num_steps" not in node
    assert "data_loader" not in node


def test_a_given_integer_trainer_wins():
    given = dict(type="T")
    config = dict(calibration_trainer=trainer(), int_infer_trainer=given)
    assert derive.trainer_node(config, "int_infer") is given


def test_predictor_takes_data_from_the_validation_callback():
    node = derive.predictor_node(dict(calibration_trainer=trainer()), "calibration")
    names = [derive.type_name(c) for c in node["model_convert_pipeline"]["converters"]]
    assert names == ["Float2Calibration", "LoadStage"]
    assert node["data_loader"] is LOADER
    assert node["metrics"] == ["m"]


def test_integer_predictor_reads_the_integer_model():
    node = derive.predictor_node(dict(calibration_trainer=trainer()), "int_infer")
    assert node["model_convert_pipeline"]["converters"] == [{"type": "LoadIntegerModel"}]


def test_nothing_is_derived_from_nothing():
    assert derive.trainer_node({}, "int_infer") is None
    assert derive.predictor_node({}, "float") is None
    assert derive.deploy_node({}) is None


def test_input_size_and_scale_come_from_validation():
    config = dict(float_trainer=trainer())
    assert derive.network_input_hw(config) == (48, 64)
    assert derive.pixel_scale(config) == 1 / 64


def test_a_later_pad_decides_the_size():
    loader = dict(dataset=dict(transforms=[*TRANSFORMS, dict(type="Pad", size=32)]))
    assert derive.network_input_hw(dict(val_data_loader=loader)) == (32, 32)


def test_other_means_have_no_fixed_scale():
    loader = dict(dataset=dict(transforms=[dict(type="Normalize", mean=127.5, std=128.0)]))
    assert derive.pixel_scale(dict(val_data_loader=loader)) is None


def test_deploy_node_drops_loss_and_post_process_and_leaves_the_model_alone():
    model = dict(type="M", backbone="b", loss="l", post_process="p")
    assert derive.deploy_node(dict(model=model)) == dict(type="M", backbone="b")
    assert "loss" in model
