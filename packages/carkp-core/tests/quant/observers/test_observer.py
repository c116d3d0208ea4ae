"""The base of observers, and what all of them have in common."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from carkp_core.quant.observers import OBSERVERS, MinMax, Observer
from carkp_core.quant.observers.observer import flattened

torch.set_num_threads(1)


@pytest.mark.parametrize("name", OBSERVERS)
def test_names_are_those_of_configs(name: str) -> None:
    assert OBSERVERS[name]().name == name


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("inf"), "an infinite value")])
@pytest.mark.parametrize("name", OBSERVERS)
def test_defects_are_remembered_and_kept_out(name: str, value: float, said: str) -> None:
    observer = OBSERVERS[name]()
    for batch in (torch.ones(4), torch.tensor([1.0, value]), torch.ones(4)):
        observer.update(batch)
    assert observer.defect == said
    assert observer.batches == 3
    assert (observer.low, observer.high) == (1.0, 1.0)


@pytest.mark.parametrize("name", sorted(set(OBSERVERS) - {"fixed_scale"}))
def test_a_constant_zero_tensor_has_threshold_zero(name: str) -> None:
    observer = OBSERVERS[name]()
    for _ in range(3):
        observer.update(torch.zeros(100))
    assert observer.threshold(127) == 0.0
    assert not any(observer.candidates(127).values())


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_empty_batch_is_none(name: str) -> None:
    observer = OBSERVERS[name]()
    observer.update(torch.zeros(0, 3))
    assert observer.batches == 0
    assert observer.absmax == 0.0


@pytest.mark.parametrize("name", OBSERVERS)
def test_memory_does_not_grow_with_the_number_of_batches(name: str) -> None:
    observer, generator = OBSERVERS[name](), torch.Generator().manual_seed(0)
    sizes = []
    for number in range(200):
        observer.update(torch.randn(2, 3, 40, 40, generator=generator) * (1 + number))
        sizes.append(len(pickle.dumps(observer)))
    assert max(sizes[5:]) - min(sizes[5:]) < 64, "a few bytes for longer whole numbers"
    assert max(sizes) < 80_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", OBSERVERS)
def test_any_float_type_is_observed(name: str, dtype: torch.dtype) -> None:
    observer = OBSERVERS[name]()
    observer.update(torch.linspace(-1, 0.5, 1000).to(dtype))
    assert (observer.low, observer.high) == (-1.0, 0.5)
    assert 0.4 < observer.threshold(127) <= 1.0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("name", sorted(set(OBSERVERS) - {"fixed_scale"}))
def test_whole_numbers_and_masks_are_observed(name: str, dtype: torch.dtype) -> None:
    observer = OBSERVERS[name]()
    observer.update((torch.arange(100) % 2).to(dtype))
    assert observer.threshold(127) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1e20, 3e38])
@pytest.mark.parametrize("name", sorted(set(OBSERVERS) - {"fixed_scale"}))
def test_the_smallest_and_the_greatest_floats_have_thresholds(name: str, size: float) -> None:
    observer = OBSERVERS[name]()
    for _ in range(2):
        observer.update(torch.linspace(-1, 1, 1001) * size)
    assert observer.defect == ""
    for threshold in observer.candidates(127).values():
        assert 0.9 * observer.absmax <= threshold <= observer.absmax


def dense_and_not() -> list[Tensor]:
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    return [x, x.contiguous(memory_format=torch.channels_last), x[:, :, ::2], x[:1, :1].expand(2, 3, 4, 5), x[0, 0, 0]]


@pytest.mark.parametrize("values", dense_and_not())
def test_flattening_keeps_every_element(values: Tensor) -> None:
    assert flattened(values).sort().values.tolist() == values.reshape(-1).sort().values.tolist()


def test_flattening_a_dense_tensor_copies_nothing() -> None:
    for values in dense_and_not()[:2]:
        assert flattened(values).data_ptr() == values.data_ptr()


def test_a_subclass_offers_its_one_threshold_under_its_name() -> None:
    class Twice(MinMax):
        name = ""

        def threshold(self, levels: int) -> float:
            return 2 * self.absmax

    observer: Observer = Twice()
    observer.update(torch.tensor([-3.0, 1.0]))
    assert observer.candidates(127) == {"Twice": 6.0}
    assert not math.isinf(observer.low)
