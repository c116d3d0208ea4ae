"""COCO's 17 body keypoints on 64 x 48 pixel crops: carkp-carfusion's network and metrics, this package's data.

``coco_root`` holds ``annotations/person_keypoints_{train,val}2017.json`` and the folders ``train2017``, ``val2017``.
"""

import os

import torch

task_name = "coco_keypoints"
march = "bayes"
seed = 0

coco_root = "tmp_data/coco"
category = "person"
num_keypoints = 17
ckpt_dir = f"tmp_models/{task_name}"
num_epochs = 20
batch_size = 32
num_workers = 0

image_size = (64, 48)  # height, width
stride = 4
heatmap_size = (image_size[0] // stride, image_size[1] // stride)

model = dict(
    type="HeatmapKeypointModel",
    backbone=dict(type="efficientnet", model_type="b0", activation="relu", use_se_block=False, include_top=False),
    decode_head=dict(
        type="DeconvDecoder",
        in_channels=112,
        out_channels=num_keypoints,
        input_index=3,
        num_conv_layers=2,
        num_deconv_filters=[64, 64],
        num_deconv_kernels=[4, 4],
        final_conv_kernel=3,
    ),
    loss=dict(type="MSELoss", reduction="mean"),
    post_process=dict(type="HeatmapDecoder", scale=stride, mode="averaged"),
)

geometry = [
    dict(type="Resize", img_scale=image_size, keep_ratio=True),
    dict(type="RandomPadLdmkData", size=image_size, random=False),
]
to_network = [dict(type="ToTensor", to_yuv=True), dict(type="Normalize", mean=128.0, std=128.0)]
target = dict(
    type="GenerateHeatmapTarget", num_ldmk=num_keypoints, feat_stride=stride, heatmap_shape=heatmap_size, sigma=1.0
)


def loader(split, transforms, shuffle):
    return dict(
        type=torch.utils.data.DataLoader,
        dataset=dict(
            type="CocoKeypoints",
            annotations=f"{coco_root}/annotations/person_keypoints_{split}2017.json",
            images=f"{coco_root}/{split}2017",
            category=category,
            transforms=transforms,
        ),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        collate_fn="collate_2d",
    )


val_transforms = [*geometry, *to_network]
val_batch_processor = dict(type="MultiBatchProcessor", need_grad_update=False)
val_callback = dict(
    type="Validation", data_loader=loader("val", val_transforms, shuffle=False), batch_processor=val_batch_processor
)
ckpt_callback = dict(type="Checkpoint", save_dir=ckpt_dir)
val_metrics = [dict(type="PCKMetric", alpha=0.1, feat_stride=stride), dict(type="MeanKeypointDist", feat_stride=stride)]

float_trainer = dict(
    type="distributed_data_parallel_trainer",
    model=model,
    data_loader=loader("train", [dict(type="RandomFlip", px=0.5), *geometry, target, *to_network], shuffle=True),
    optimizer=dict(type=torch.optim.AdamW, lr=0.001, weight_decay=5e-2),
    batch_processor=dict(
        type="MultiBatchProcessor",
        need_grad_update=True,
        loss_collector=dict(type="collect_loss_by_index", indexes=1),
    ),
    num_epochs=num_epochs,
    callbacks=[dict(type="CosLrUpdater", warmup_len=1, warmup_by="epoch"), val_callback, ckpt_callback],
    train_metrics=[dict(type="LossShow")],
    val_metrics=val_metrics,
)

calibration_trainer = dict(
    type="Calibrator",
    model=model,
    model_convert_pipeline=dict(
        type="ModelConvertPipeline",
        converters=[
            dict(type="LoadCheckpoint", checkpoint_path=os.path.join(ckpt_dir, "float-checkpoint-best.pth.tar")),
            dict(type="Float2Calibration"),
        ],
    ),
    data_loader=loader("train", val_transforms, shuffle=True),
    batch_processor=val_batch_processor,
    num_steps=50,
    callbacks=[val_callback, ckpt_callback],
    val_metrics=val_metrics,
)

infer_cfg = dict(type="KeypointInference", transforms=val_transforms)
