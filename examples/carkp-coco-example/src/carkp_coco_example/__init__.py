"""Keypoints in COCO's format as a data set for carkp."""
