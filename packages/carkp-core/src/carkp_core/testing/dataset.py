"""`check_dataset`: does a data set give carkp's trainers what they read, the same in every process?

Legend: ``K`` keypoints, ``H W`` the image.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from carkp_core.testing.findings import Findings

_BATCHES = "batches are made of samples with the same keys, types and shapes"


def check_dataset(dataset: Any, samples: int = 8, keys: Sequence[str] = ("img",), workers: int = 2) -> None:
    """Hold a data set to all that carkp asks of one.

    It has a length; a sample is a dict with ``keys``, the same whenever it is asked for, also in a copy and in a
    loader's worker; ``set_epoch``, if there is one, can be called. Keypoints, where there are any (``gt_ldmk`` [K, 2]
    with validity ``gt_ldmk_attr`` [K]), have a consistent K, and a valid point is finite and lies in the image. Flip
    pairs of a ``skeleton`` undo themselves.

    Parameters
    ----------
    samples:
        How many samples to look at, spread over the data set.
    keys:
        Keys that every sample must have.
    workers:
        Loader workers to compare with this process; 0 skips that.

    Raises
    ------
    CheckFailed
        With every finding.
    """
    found = Findings(f"data set {type(dataset).__name__}")
    with found.step("len()", "loaders and progress bars need the number of samples", "implement __len__"):
        found.expect(
            len(dataset) > 0, "the data set is empty", "there is nothing to train on", "check its path and its filters"
        )
    found.raise_if_any()
    indices = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, max(1, samples))})
    taken: dict[int, Any] = {}
    for index in indices:
        with found.step(f"sample {index}", "every sample must load", "look at this sample alone"):
            taken[index] = copy.deepcopy(dataset[index])
            _check_sample(found, index, taken[index], keys)
            _compare(found, f"sample {index} asked for twice", taken[index], dataset[index])
    found.raise_if_any()
    _check_alike(found, taken)
    _check_skeleton(found, dataset, taken)
    with found.step("pickling", "workers that are spawned get a pickled copy", "open files on first use, per process"):
        again = pickle.loads(pickle.dumps(dataset))
        _compare(found, f"sample {indices[0]} of a pickled copy", taken[indices[0]], again[indices[0]])
    if hasattr(dataset, "set_epoch"):
        with found.step("set_epoch", "the trainer calls it before each epoch", "accept the epoch's number"):
            dataset.set_epoch(1)
            dataset.set_epoch(0)
    if workers:
        with found.step("loader workers", "training reads through them", "open files on first use, per process"):
            _check_workers(found, dataset, indices, taken, workers)
    found.raise_if_any()


def _check_sample(found: Findings, index: int, sample: Any, keys: Sequence[str]) -> None:
    if not found.expect(
        isinstance(sample, Mapping), f"sample {index} is a {type(sample).__name__}",
        "transforms, models and metrics read samples by key", "return a dict",
    ):  # fmt: skip
        return
    missing = [key for key in keys if key not in sample]
    found.expect(
        not missing, f"sample {index} has no {', '.join(missing)}; it has {', '.join(map(str, sample))}",
        "what reads the batch asks for these keys", "add them in __getitem__",
    )  # fmt: skip
    if "img" in sample:
        _check_image(found, index, sample["img"])
    if "gt_ldmk" in sample:
        _check_keypoints(found, index, sample)


def _check_image(found: Findings, index: int, image: Any) -> None:
    array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    tensor = isinstance(image, torch.Tensor) and image.is_floating_point() and image.ndim == 3
    kind = f"{getattr(image, 'dtype', type(image).__name__)} of shape {tuple(getattr(image, 'shape', ()))}"
    found.expect(
        array or tensor, f"img of sample {index} is {kind}",
        "transforms take RGB uint8 [H, W, 3]; networks take a float tensor [C, H, W]",
        "return the one before ToTensor, the other behind it",
    )  # fmt: skip


def _check_keypoints(found: Findings, index: int, sample: Mapping[str, Any]) -> None:
    points, validity = np.asarray(sample["gt_ldmk"]), np.asarray(sample.get("gt_ldmk_attr", ()))
    if not found.expect(
        points.ndim == 2 and points.shape[1] == 2 and validity.shape == points.shape[:1],
        f"sample {index} has gt_ldmk {points.shape} and gt_ldmk_attr {validity.shape}",
        "targets and metrics pair each point with its validity", "return [K, 2] and [K]",
    ):  # fmt: skip
        return
    found.expect(
        bool(np.isin(validity, (0, 1)).all()), f"gt_ldmk_attr of sample {index} holds {np.unique(validity).tolist()}",
        "validity weighs the loss and selects a metric's points", "write 1 for a valid point, else 0",
    )  # fmt: skip
    image = sample["img"]
    height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.shape[-2:]
    valid = points[validity == 1]
    inside = np.isfinite(valid).all(axis=1) & (valid >= -0.5).all(axis=1) & (valid < (width, height)).all(axis=1)
    found.expect(
        bool(inside.all()), f"sample {index} has valid points outside its image: {valid[~inside][:3].tolist()}",
        "such a point has no place in a heatmap", "mark points outside the image invalid; x comes before y",
    )  # fmt: skip


def _check_alike(found: Findings, taken: Mapping[int, Any]) -> None:
    first, *others = taken.items()
    for index, sample in others:
        found.expect(
            set(sample) == set(first[1]), f"samples {first[0]} and {index} have other keys: "
            f"{', '.join(sorted(set(sample) ^ set(first[1])))}", _BATCHES, "give every sample the same keys",
        )  # fmt: skip
    counts = {np.asarray(s["gt_ldmk"]).shape[0] for s in taken.values() if "gt_ldmk" in s}
    found.expect(len(counts) < 2, f"samples have {sorted(counts)} keypoints", _BATCHES, "fill up with invalid points")


def _check_skeleton(found: Findings, dataset: Any, taken: Mapping[int, Any]) -> None:
    skeleton = getattr(dataset, "skeleton", None)
    if skeleton is None:
        return
    order = list(skeleton.flip_index)
    found.expect(
        [order[i] for i in order] == list(range(len(order))), f"flip_index {order} does not undo itself",
        "mirroring twice must give the same points", "list each left/right pair once",
    )  # fmt: skip
    counts = {np.asarray(s["gt_ldmk"]).shape[0] for s in taken.values() if "gt_ldmk" in s}
    found.expect(
        counts <= {len(order)}, f"the skeleton has {len(order)} keypoints, samples have {sorted(counts)}",
        "flips and tables go by the skeleton", "make them agree",
    )  # fmt: skip


def _check_workers(found: Findings, dataset: Any, indices: list[int], taken: Mapping[int, Any], workers: int) -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, indices), batch_size=None, num_workers=workers, collate_fn=_as_it_is
    )
    for index, sample in zip(indices, loader, strict=True):
        _compare(found, f"sample {index} from a worker", taken[index], sample)


def _as_it_is(sample: Any) -> Any:
    return sample


def _compare(found: Findings, what: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    different = [key for key in expected if not _same(expected[key], got.get(key))]
    found.expect(
        not different, f"{what} differs in {', '.join(map(str, different))}",
        "a sample may depend on (seed, epoch, index) only, or a run cannot be repeated",
        "draw from np.random.default_rng((seed, epoch, index)), not from global generators",
    )  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (np.ndarray, torch.Tensor)):
        return type(a) is type(b) and bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=_floats(a)))
    return bool(a == b)


def _floats(a: Any) -> bool:
    return np.asarray(a).dtype.kind == "f"
