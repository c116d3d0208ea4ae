"""Samples of keypoint data sets, and the packed one.

A sample is a dict; a batch (`carkp_carfusion.data.collate.collate_2d`) has the same keys, tensors stacked:

==================  ==================================================================================================
``img``             RGB uint8 [H, W, 3]; after `ToTensor` a float32 tensor [3, H, W]
``gt_ldmk``         float32 [K, 2], x and y in pixels of ``img``
``gt_ldmk_attr``    float32 [K], 1 where the point is valid, else 0
``transform_xy``    float64 [2, 3], the affine map from the stored image's pixels to those of ``img``
``img_name``        the image's path in the cropped data
``img_height``, ``img_width``   size of the stored image
``index``           the sample's index
``gt_heatmap``, ``gt_heatmap_weight``   float32 [K, h, w], where `GenerateHeatmapTarget` is used
==================  ==================================================================================================

While the transforms run there is also ``flip_index``: K indices, the skeleton's left/right exchange.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from carkp_carfusion.data import geometry
from carkp_carfusion.data.images import decode_image
from carkp_carfusion.data.lmdb_store import PackStore
from carkp_carfusion.skeleton import Skeleton
from carkp_core.errors import DataError

if TYPE_CHECKING:
    from carkp_core.context import Context

Sample = dict[str, Any]
Transform = Callable[[Sample, np.random.Generator], Sample]


class KeypointDataset(Dataset[Sample]):
    """What every keypoint data set shares: transforms, and randomness from (seed, epoch, index) alone.

    Neither the worker, nor the order, nor the number of processes changes a sample. A data set of one's own derives
    from this class, calls its constructor and implements ``raw``.

    Parameters
    ----------
    skeleton:
        What the K keypoints are.
    count:
        How many samples there are.
    transforms:
        Called one after the other as ``transform(sample, rng)``.
    seed:
        The first of the three numbers that all randomness comes from; left out, the run's seed, else 0.
    context:
        The run, given by the config's builder to a constructor that has such a parameter.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        count: int,
        transforms: Sequence[Transform] | None = None,
        seed: int | None = None,
        context: Context | None = None,
    ) -> None:
        self.skeleton = skeleton
        self.transforms = tuple(transforms or ())
        self.seed = seed if seed is not None else context.seed if context is not None else 0
        self._count = count
        # In shared memory, so that workers that outlive an epoch see the next one's number too.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._ready_pid: int | None = None

    def raw(self, index: int) -> Sample:
        """Sample ``index`` (0..N-1) before any transform, with every key of the module's table but the heatmaps."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose randomness the next samples have, in this process and in its workers."""
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch last set; 0 at first."""
        return int(self._epoch[0])

    def __getitem__(self, index: int) -> Sample:
        return self.replay(index, self.epoch)

    def replay(self, index: int, epoch: int) -> Sample:
        """Sample ``index`` as it is in ``epoch``, whatever epoch is set.

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        index = operator.index(index)
        if not -self._count <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        index %= self._count
        self._prepare_process()
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.raw(index)
        sample["flip_index"] = self.skeleton.flip_index
        for transform in self.transforms:
            sample = transform(sample, rng)
        sample.pop("flip_index", None)
        return sample

    def _prepare_process(self) -> None:
        """Once in each process: loader workers are the parallelism, so OpenCV must not add threads to them."""
        if self._ready_pid != os.getpid():
            self._ready_pid = os.getpid()
            if get_worker_info() is not None:
                cv2.setNumThreads(0)


class CarfusionPackData(KeypointDataset):
    """The data set of one ``<split>_lmdb`` folder.

    Parameters
    ----------
    data_path:
        A folder made by ``carkp carfusion-packer``.
    transforms, seed, context:
        As in `KeypointDataset`; the skeleton is the packed one.

    Raises
    ------
    DataError
        If there is no packed data set, or it is damaged or of another format version.
    """

    def __init__(
        self,
        data_path: str | Path,
        transforms: Sequence[Transform] | None = None,
        seed: int | None = None,
        context: Context | None = None,
    ) -> None:
        self.data_path = Path(data_path)
        self._store = PackStore(data_path)
        header = self._store.header()
        super().__init__(header.skeleton, header.count, transforms, seed, context)

    def raw(self, index: int) -> Sample:
        """Sample ``index`` (0..N-1) before any transform.

        Raises
        ------
        DataError
            If its record or image is damaged.
        """
        packed = self._store.sample(index)
        image = decode_image(packed.image)
        if image is None:
            raise DataError(
                "an image of the packed data set does not decode",
                where=f"{self.data_path}[{index}]",
                seen=packed.name,
                remedy="pack the data again with `carkp carfusion-packer`",
            )
        height, width = image.shape[:2]
        return {
            "img": image,
            "gt_ldmk": packed.rows[:, :2].copy(),
            "gt_ldmk_attr": packed.rows[:, 2].copy(),
            "transform_xy": geometry.identity(),
            "img_name": packed.name,
            "img_height": height,
            "img_width": width,
            "index": index,
        }
