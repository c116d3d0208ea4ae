"""Loaders built from a config's ``DataLoader``: capped to the machine, shared between processes, resumable.

What a config says of a loader is a ``LoaderPlan``; ``EpochLoader`` yields the batches of any epoch from any position.
The samples, their order and their augmentation depend on ``(seed, epoch)`` alone: not on the number of workers, nor on
how many batches were skipped.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler

from carkp_core.config.recipe import Recipe, build_value, where
from carkp_core.context import Context
from carkp_core.errors import CarkpError, ConfigError, DataError
from carkp_core.train.ahead import ahead
from carkp_core.train.collate import default_collate
from carkp_core.train.distributed import World
from carkp_core.train.environment import Environment
from carkp_core.train.loader_fit import PREFETCH, fitted, own_randomness, threaded
from carkp_core.train.samplers import EpochBatches, Key, Order
from carkp_core.train.seeding import seed_everything, seeded

#: Arguments of torch's DataLoader that go to it as they are.
_PASSED_ON = ("timeout", "prefetch_factor", "multiprocessing_context")


@frozen(eq=False)
class LoaderPlan:
    """What a config asks of a loader."""

    dataset: Any
    batch_size: int = 1
    shuffle: bool = False
    sampler: Any = None
    num_workers: int = 0
    pin_memory: bool = False
    drop_last: bool = False
    collate_fn: Callable[[list[Any]], Any] = default_collate
    passed_on: Mapping[str, Any] = field(factory=dict)

    @classmethod
    def of(cls, source: Any, context: Context) -> LoaderPlan:
        """Read a recipe of a ``DataLoader``, a ``DataLoader`` itself, or a plan.

        Raises
        ------
        ConfigError
            For anything else, or arguments that carkp's loaders have no use for.
        """
        if isinstance(source, LoaderPlan):
            return source
        if isinstance(source, DataLoader):
            return _plan_of_loader(source)
        if isinstance(source, Recipe) and source.type is DataLoader:
            return _plan_of_recipe(source, context)
        if isinstance(source, Recipe):
            return cls.of(source.build(), context)
        raise ConfigError(
            "a data loader is neither a DataLoader nor a dict that describes one",
            seen=type(source).__name__,
            allowed="dict(type=torch.utils.data.DataLoader, dataset=..., batch_size=...)",
        )


def _plan_of_recipe(recipe: Recipe, context: Context) -> LoaderPlan:
    given = recipe.kwargs
    known = {attribute.name for attribute in attrs.fields(LoaderPlan)} - {"passed_on"}
    ignored = {"generator", "persistent_workers", "worker_init_fn"}  # carkp sets its own
    for key in given.keys() - known - ignored - set(_PASSED_ON):
        raise ConfigError(
            f"{key!r} has no meaning here",
            where=where(recipe.node, key, f"{recipe.path}.{key}"),
            allowed=", ".join(sorted(known | set(_PASSED_ON))),
        )
    dataset = _build_dataset(recipe, context)
    collate = given.get("collate_fn")
    place = f"{recipe.path}.collate_fn"
    if isinstance(collate, (str, dict)):
        collate = (
            context.catalog.resolve(collate, place)
            if isinstance(collate, str)
            else build_value(collate, place, context)
        )
    batch_size = given.get("batch_size", 1)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(
            "batch_size is not a positive whole number",
            where=where(recipe.node, "batch_size", f"{recipe.path}.batch_size"),
            seen=repr(batch_size),
        )
    return LoaderPlan(
        dataset=dataset,
        batch_size=batch_size,
        shuffle=bool(given.get("shuffle") or False),
        sampler=_build_sampler(recipe, dataset, context),
        num_workers=int(given.get("num_workers") or 0),
        pin_memory=bool(given.get("pin_memory", False)),
        drop_last=bool(given.get("drop_last", False)),
        collate_fn=collate or default_collate,
        passed_on={key: given[key] for key in _PASSED_ON if given.get(key) is not None},
    )


def _build_dataset(recipe: Recipe, context: Context) -> Any:
    node = recipe.kwargs.get("dataset")
    if not isinstance(node, dict):
        return node
    child = recipe.child("dataset")
    assert child is not None
    takes_seed = "seed" not in child.kwargs and "seed" in _parameters(child.type)
    return child.build(seed=context.seed) if takes_seed else child.build()


def _build_sampler(recipe: Recipe, dataset: Any, context: Context) -> Any:
    """A config's own sampler; None for torch's distributed one, whose work the ``Order`` does."""
    node = recipe.kwargs.get("sampler")
    if not isinstance(node, dict):
        return None if isinstance(node, DistributedSampler) else node
    child = recipe.child("sampler")
    assert child is not None
    if isinstance(child.type, type) and issubclass(child.type, DistributedSampler):
        return None
    name = next((n for n in ("dataset", "data_source") if n in _parameters(child.type) and n not in child.kwargs), None)
    return child.build(**{name: dataset}) if name else child.build()


def _plan_of_loader(loader: DataLoader[Any]) -> LoaderPlan:
    own = not isinstance(loader.sampler, (RandomSampler, torch.utils.data.SequentialSampler, DistributedSampler))
    if loader.batch_size is None:
        raise ConfigError("a DataLoader without batch_size cannot be resumed", remedy="give it batch_size and sampler")
    return LoaderPlan(
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        shuffle=isinstance(loader.sampler, RandomSampler) or getattr(loader.sampler, "shuffle", False) is True,
        sampler=loader.sampler if own else None,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn or default_collate,
    )


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


class Replayed(Dataset[Any]):
    """A data set addressed by ``(epoch, index)``: the same key gives the same sample, always and everywhere.

    A data set with ``replay(index, epoch)`` or ``set_epoch(epoch)`` derives its randomness itself. Any other may use
    the global random generators, which are seeded for each of its samples.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, key: Key) -> Any:
        try:
            return self._sample(*key)
        except CarkpError as error:
            return Failure(error)

    def _sample(self, epoch: int, index: int) -> Any:
        if hasattr(self.dataset, "replay"):
            return self.dataset.replay(index, epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
            return self.dataset[index]
        if torch.utils.data.get_worker_info() is not None:
            seed_everything(self.seed, epoch, index)
            return self.dataset[index]
        with seeded(self.seed, epoch, index):
            return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)


@frozen(eq=False)
class Failure:
    """A user's error in a sample or a batch, carried from a worker: torch would make a traceback's text of it."""

    error: CarkpError


@frozen(eq=False)
class Collated:
    """A collate function that hands failures on."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any:
        failed = next((sample for sample in samples if isinstance(sample, Failure)), None)
        if failed is not None:
            return failed
        try:
            return self.collate(samples)
        except CarkpError as error:
            return Failure(error)


class EpochLoader:
    """The batches of any epoch, from any position on.

    Parameters
    ----------
    plan:
        What the config asks for; made fit for this machine with ``fitted``.
    training:
        Shuffle applies and every process gets equally many samples. Otherwise the order is fixed, nothing is
        duplicated, and no sample is dropped; and without worker processes a thread loads ahead, if the data set
        needs no global random generator.
    """

    def __init__(self, plan: LoaderPlan, seed: int, world: World, training: bool) -> None:
        if not hasattr(plan.dataset, "__len__") or not hasattr(plan.dataset, "__getitem__"):
            raise ConfigError(
                "a data set has no length",
                seen=type(plan.dataset).__name__,
                allowed="a data set with __len__ and __getitem__, so that a run can be resumed and shared",
            )
        shuffle = plan.shuffle and training
        order = Order(len(plan.dataset), seed, shuffle, world, training, plan.sampler if training else None)
        self._batches = EpochBatches(order, plan.batch_size, plan.drop_last and training)
        self.plan = plan
        self.dataset = plan.dataset
        self._by_thread = not training and plan.num_workers == 0 and own_randomness(plan.dataset)
        self.batch_size = plan.batch_size
        if len(plan.dataset) == 0 or (training and len(self._batches) == 0):
            raise DataError(
                "a data set is too small for a single batch",
                seen=f"{len(plan.dataset)} samples, batch_size {plan.batch_size}, drop_last {plan.drop_last}",
                remedy="check the data set's path and split",
            )
        self._loader: DataLoader[Any] = DataLoader(
            Replayed(plan.dataset, seed),
            batch_sampler=self._batches,
            num_workers=plan.num_workers,
            pin_memory=plan.pin_memory,
            collate_fn=Collated(plan.collate_fn),
            worker_init_fn=_start_worker,
            persistent_workers=plan.num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
            **plan.passed_on,
        )

    def __len__(self) -> int:
        """The number of batches in an epoch, in this process."""
        return len(self._batches)

    def epoch(self, epoch: int, skip: int = 0) -> Generator[Any]:
        """Yield the batches of an epoch without its first ``skip``, which are not loaded."""
        if skip >= len(self):
            return
        self._batches.start(epoch, skip)
        try:
            for batch in ahead(lambda: self._loader, PREFETCH) if self._by_thread else self._loader:
                if isinstance(batch, Failure):
                    raise batch.error
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a worker process of a data loader has died",
                seen=str(error).splitlines()[0],
                remedy="lower num_workers or batch_size: memory may be short",
            ) from error

    def close(self) -> None:
        """End the worker processes. Left to the interpreter's exit, each would be waited for, five seconds long."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None

    def groups(self, epoch: int, size: int, skip: int = 0) -> Iterator[list[Any]]:
        """Yield groups of ``size`` batches, the last may be smaller, without the first ``skip`` groups."""
        group: list[Any] = []
        for batch in self.epoch(epoch, skip * size):
            group.append(batch)
            if len(group) == size:
                yield group
                group = []
        if group:
            yield group


def _start_worker(_worker: int) -> None:
    """In a worker: one thread, and Ctrl-C is the parent's business (torch handles SIGTERM)."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def open_loader(source: Any, environment: Environment, training: bool, own_threads: bool = False) -> EpochLoader:
    """Open what a config says of a loader, fit for this machine; its workers end with the environment.

    ``own_threads`` says that the model which takes the batches uses all cores by threads that leave Python alone.
    """
    world = environment.world
    plan = LoaderPlan.of(source, environment.context)
    if own_threads and not training:
        plan = threaded(plan, world, environment.say_once, environment.context.threads)
    plan = fitted(plan, world, environment.say_once, environment.context.threads)
    loader = EpochLoader(plan, environment.context.seed, world, training)
    environment.resources.callback(loader.close)
    return loader
