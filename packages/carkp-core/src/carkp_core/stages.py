"""The stages of a model's life and the names their parts have in a config."""

from __future__ import annotations

STAGES = ("float", "calibration", "qat", "int_infer")

#: Stage -> config names of its trainer; the first that the config assigns is used.
TRAINERS = {
    "float": ("float_trainer",),
    "calibration": ("calibration_trainer",),
    "qat": ("qat_trainer",),
    "int_infer": ("int_trainer", "int_infer_trainer"),
}

#: Stage -> config names of its predictor.
PREDICTORS = {
    "float": ("float_predictor",),
    "calibration": ("calibration_predictor",),
    "qat": ("qat_predictor",),
    "int_infer": ("int_infer_predictor", "int_predictor"),
}

#: Every config name that is built as it stands, and so is checked before anything starts.
ROOTS = (
    "model",
    "deploy_model",
    *(name for names in TRAINERS.values() for name in names),
    *(name for names in PREDICTORS.values() for name in names),
    "align_bpu_predictor",
    "infer_cfg",
)
