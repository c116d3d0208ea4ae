"""The keypoint network and what stands around it: loss, heatmap codec, pretrained weights."""
