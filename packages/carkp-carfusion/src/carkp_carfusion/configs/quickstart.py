"""The config behind ``carkp quickstart``: the CarFusion workflow made small enough for two cores and a few minutes.

The same parts as ``keypoint_efficientnetb0_carfusion`` on 64 x 64 pixel crops, with narrower transposed convolutions
and heatmaps at stride 4. It is for seeing every step work, not for results to compare.
"""

import copy
import os

import torch

task_name = "quickstart"
march = "bayes"
seed = 0

data_root = "tmp_data/carfusion"
ckpt_dir = f"./tmp_models/{task_name}"

NUM_LDMK = 12
image_size = (64, 64)  # height, width
batch_size_per_gpu = 16
num_epochs = 9
num_workers = 0
convert_mode = "fx"

model = dict(
    type="HeatmapKeypointModel",
    backbone=dict(type="efficientnet", model_type="b0", activation="relu", use_se_block=False, include_top=False),
    decode_head=dict(
        type="DeconvDecoder",
        in_channels=112,
        out_channels=NUM_LDMK,
        input_index=3,
        num_conv_layers=2,
        num_deconv_filters=[64, 64],
        num_deconv_kernels=[4, 4],
        final_conv_kernel=3,
    ),
    loss=dict(type="MSELoss", reduction="mean"),
    post_process=dict(type="HeatmapDecoder", scale=4, mode="averaged"),
)

val_transforms = [
    dict(type="Resize", img_scale=image_size, keep_ratio=False),
    dict(type="RandomPadLdmkData", size=image_size, random=False),
    dict(type="ToTensor", to_yuv=True),
    dict(type="Normalize", mean=128.0, std=128.0),
]
data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(
        type="CarfusionPackData",
        data_path=f"{data_root}/train_lmdb",
        transforms=[
            dict(type="RandomFlip", px=0.5),
            dict(type="Resize", img_scale=image_size, keep_ratio=False),
            dict(type="RandomPadLdmkData", size=image_size),
            dict(type="AddGaussianNoise", prob=0.2, mean=0, sigma=2),
            dict(
                type="GenerateHeatmapTarget",
                num_ldmk=NUM_LDMK,
                feat_stride=4,
                heatmap_shape=(image_size[0] // 4, image_size[1] // 4),
                sigma=1.0,
            ),
            dict(type="ToTensor", to_yuv=True),
            dict(type="Normalize", mean=128.0, std=128.0),
        ],
    ),
    batch_size=batch_size_per_gpu,
    shuffle=True,
    num_workers=num_workers,
    collate_fn="collate_2d",
)
val_data_loader = dict(
    type=torch.utils.data.DataLoader,
    dataset=dict(type="CarfusionPackData", data_path=f"{data_root}/test_lmdb", transforms=val_transforms),
    batch_size=batch_size_per_gpu,
    shuffle=False,
    num_workers=num_workers,
    collate_fn="collate_2d",
)

batch_processor = dict(
    type="MultiBatchProcessor",
    need_grad_update=True,
    loss_collector=dict(type="collect_loss_by_index", indexes=1),
)
val_batch_processor = dict(type="MultiBatchProcessor", need_grad_update=False)
ckpt_callback = dict(type="Checkpoint", save_dir=ckpt_dir)
val_callback = dict(type="Validation", data_loader=val_data_loader, batch_processor=val_batch_processor, val_interval=3)
val_metrics = [
    dict(type="PCKMetric", alpha=0.1, feat_stride=4, img_shape=image_size),
    dict(type="MeanKeypointDist", feat_stride=4),
]

float_trainer = dict(
    type="distributed_data_parallel_trainer",
    model=model,
    data_loader=data_loader,
    optimizer=dict(type=torch.optim.AdamW, lr=0.002, weight_decay=5e-2),
    batch_processor=batch_processor,
    num_epochs=num_epochs,
    callbacks=[
        dict(type="CosLrUpdater", warmup_len=1, warmup_by="epoch"),
        val_callback,
        ckpt_callback,
    ],
    train_metrics=[dict(type="LossShow")],
    val_metrics=val_metrics,
)

calibration_data_loader = copy.deepcopy(data_loader)
calibration_data_loader["dataset"]["transforms"] = val_transforms
calibration_step = 12

# Channels of very different range share their steps before ranges are observed, and means are put right afterwards.
# docs/quantization.md has the others: AdaRound, Int16, AutoInt16.
repairs = [dict(type="CrossLayerEqualization"), dict(type="BiasCorrection")]

calibration_trainer = dict(
    type="Calibrator",
    model=model,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        qat_mode="fuse_bn",
        # For each tensor the observer that costs least where the tensor is read. The tutorial's own choice is
        # "percentile" with activation_calibration_qkwargs=dict(percentile=99.975).
        qconfig_params=dict(activation_calibration_observer="mix"),
        converters=[
            dict(type="LoadCheckpoint", checkpoint_path=os.path.join(ckpt_dir, "float-checkpoint-best.pth.tar")),
            dict(type="Float2Calibration", convert_mode=convert_mode),
        ],
    ),
    data_loader=calibration_data_loader,
    batch_processor=val_batch_processor,
    num_steps=calibration_step,
    repairs=repairs,
    callbacks=[val_callback, ckpt_callback],
    val_metrics=val_metrics,
)

# `carkp quickstart` calibrates only; this is for `carkp train --config quickstart --stage qat`.
qat_trainer = dict(
    type="distributed_data_parallel_trainer",
    model=model,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        qat_mode="fuse_bn",
        qconfig_params=dict(activation_qat_observer="learned"),
        converters=[
            dict(type="Float2QAT", convert_mode=convert_mode),
            dict(type="LoadCheckpoint", checkpoint_path=os.path.join(ckpt_dir, "calibration-checkpoint-best.pth.tar")),
        ],
    ),
    data_loader=data_loader,
    optimizer=dict(type=torch.optim.AdamW, lr=0.0001, weight_decay=0.0),
    batch_processor=batch_processor,
    num_epochs=2,
    callbacks=[
        dict(type="FreezeQuantization", scale_epoch=1.5),
        dict(type="CosLrUpdater", warmup_len=0.1, warmup_by="epoch"),
        val_callback,
        ckpt_callback,
    ],
    train_metrics=[dict(type="LossShow")],
    val_metrics=val_metrics,
)

compile_dir = os.path.join(ckpt_dir, "compile")
compile_cfg = dict(
    march=march, name=task_name, hbm=os.path.join(compile_dir, "model.hbm"), out_dir=compile_dir, input_source="pyramid"
)

infer_cfg = dict(type="KeypointInference", transforms=val_transforms)
