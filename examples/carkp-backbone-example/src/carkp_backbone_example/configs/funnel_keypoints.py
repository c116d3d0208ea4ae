"""Car keypoints with FunnelNet on 64 x 64 pixel crops, small enough to try on a laptop.

The backbone is this package's; data, head, loss, decoding and metrics are carkp-carfusion's.
"""

import os

import torch

task_name = "funnel_keypoints"
march = "bayes"
seed = 0

data_root = "tmp_data/carfusion"
ckpt_dir = f"tmp_models/{task_name}"
num_epochs = 10
batch_size = 16
width = 16

NUM_LDMK = 12
image_size = (64, 64)  # height, width
stride = 4
heatmap_size = (image_size[0] // stride, image_size[1] // stride)

model = dict(
    type="HeatmapKeypointModel",
    backbone=dict(type="FunnelNet", width=width),
    decode_head=dict(
        type="DeconvDecoder",
        in_channels=width * 8,
        out_channels=NUM_LDMK,
        input_index=3,
        num_conv_layers=2,
        num_deconv_filters=[32, 32],
        num_deconv_kernels=[4, 4],
        final_conv_kernel=3,
    ),
    loss=dict(type="MSELoss", reduction="mean"),
    post_process=dict(type="HeatmapDecoder", scale=stride, mode="averaged"),
)

geometry = [
    dict(type="Resize", img_scale=image_size, keep_ratio=False),
    dict(type="RandomPadLdmkData", size=image_size, random=False),
]
to_network = [dict(type="ToTensor", to_yuv=True), dict(type="Normalize", mean=128.0, std=128.0)]
target = dict(
    type="GenerateHeatmapTarget", num_ldmk=NUM_LDMK, feat_stride=stride, heatmap_shape=heatmap_size, sigma=1.0
)


def loader(split, transforms, shuffle):
    return dict(
        type=torch.utils.data.DataLoader,
        dataset=dict(type="CarfusionPackData", data_path=f"{data_root}/{split}_lmdb", transforms=transforms),
        batch_size=batch_size,
        shuffle=shuffle,
        collate_fn="collate_2d",
    )


val_batch_processor = dict(type="MultiBatchProcessor", need_grad_update=False)
val_transforms = [*geometry, *to_network]
val_callback = dict(
    type="Validation",
    data_loader=loader("test", val_transforms, shuffle=False),
    batch_processor=val_batch_processor,
)
ckpt_callback = dict(type="Checkpoint", save_dir=ckpt_dir)
val_metrics = [dict(type="PCKMetric", alpha=0.1, feat_stride=stride), dict(type="MeanKeypointDist", feat_stride=stride)]

float_trainer = dict(
    type="Trainer",
    model=model,
    data_loader=loader("train", [dict(type="RandomFlip", px=0.5), *geometry, target, *to_network], shuffle=True),
    optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.05),
    batch_processor=dict(
        type="MultiBatchProcessor",
        need_grad_update=True,
        loss_collector=dict(type="collect_loss_by_index", indexes=1),
    ),
    num_epochs=num_epochs,
    callbacks=[dict(type="CosLrUpdater", warmup_len=0), val_callback, ckpt_callback],
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
    num_steps=8,
    callbacks=[val_callback, ckpt_callback],
    val_metrics=val_metrics,
)

compile_cfg = dict(out_dir=os.path.join(ckpt_dir, "compile"))
infer_cfg = dict(type="KeypointInference", transforms=val_transforms)
