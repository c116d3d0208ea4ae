"""The graph simulator: an integer model, executed fast and bit-equal to ``carkp_core.ir.reference``.

    executor = simulate(graph, threads=2)
    outputs = executor({"img": images_nchw_int8})

Threads split the batch; what fits one slice runs on the caller's. Each owns an arena and all calls bound to it, so
that nothing is allocated while it runs except the results, and any number of callers may share one executor.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import asdict, evolve, frozen

from carkp_bpu.simulator.lowering import Kernel, lower
from carkp_bpu.simulator.lowering.base import Bind, Request, Run, Scratch, logical, stored, stored_shape
from carkp_bpu.simulator.lowering.conv import Convolution
from carkp_bpu.simulator.lowering.fused_conv import joined, vector_kernels_run
from carkp_bpu.simulator.packing import MARGIN
from carkp_bpu.simulator.plan import ALIGNMENT, Plan, make_plan
from carkp_core.errors import GraphError
from carkp_core.ir.graph import Graph, Node, TensorType
from carkp_core.ir.inputs import check_inputs
from carkp_core.ir.operators import Conv2d, ConvTranspose2d
from carkp_core.threads import single_threaded_pool

Array = npt.NDArray[Any]

#: Bytes of scratch that a worker starts with.
SCRATCH_BYTES = 1 << 20


def simulate(
    graph: Graph,
    threads: int | None = None,
    *,
    int8_multiply: bool | None = None,
    vectors: bool | None = None,
    kernels: Mapping[str, Kernel] | None = None,
) -> GraphExecutor:
    """Make an executor of an integer model.

    Parameters
    ----------
    graph:
        The model.
    threads:
        Threads that share a batch; by default as many as torch uses.
    int8_multiply:
        Use the machine's int8 matrix multiply; by default when its self-test passes. False is exact as well, slower.
    vectors:
        Use the vector kernels; by default where the CPU has what they need. False is exact as well, slower.
    kernels:
        ``kernel(op, inputs) -> array`` on NCHW arrays by operator kind, for operators that carkp-bpu does not know;
        the others' own ``execute`` is used.

    Raises
    ------
    GraphError
        When the graph is not well formed or holds an operator without integer form.
    ValueError
        When ``threads`` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    on_vectors = vector_kernels_run() if vectors is None else vectors
    routes = Routes(int8_multiply, on_vectors)
    return GraphExecutor(graph, threads or torch.get_num_threads(), routes, kernels or {})


@frozen
class Routes:
    """What an executor may use of the machine."""

    #: None: if it passes its self-test, once a layer needs it.
    int8_multiply: bool | None
    vectors: bool


class GraphExecutor:
    """A planned graph and the threads that run it. Made by ``simulate``."""

    def __init__(self, graph: Graph, threads: int, routes: Routes, kernels: Mapping[str, Kernel]) -> None:
        self.graph = graph
        self.threads = threads
        self._options: dict[str, Any] = {**asdict(routes), "kernels": dict(kernels)}
        self._plan = make_plan(graph)
        types = graph.types()
        lowered = [
            lower(
                Request(node, tuple(types[name] for name in node.inputs), routes.int8_multiply, routes.vectors),
                kernels.get(node.op.kind),
            )
            for node in self._plan.steps
        ]
        self._binds = tuple(bind for bind, _ in lowered)
        #: Nodes that the reference executor or a plugin runs, for want of a fast kernel.
        self.reference_nodes = tuple(
            node.name for node, (_, fast) in zip(self._plan.steps, lowered, strict=True) if not fast
        )
        self._types = types
        self._lock = threading.Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._here = threading.Lock()
        self._worker_here: _Worker | None = None
        self._uses_torch = any(isinstance(getattr(bind, "__self__", None), Convolution) for bind in self._binds)

    def __reduce__(self) -> Any:
        """Copies and pickles are made anew: threads and arenas belong to one executor of one process."""
        return functools.partial(simulate, **self._options), (self.graph, self.threads)

    def __call__(self, inputs: Mapping[str, Array], taps: Sequence[str] = ()) -> dict[str, Array]:
        """Run a batch.

        Parameters
        ----------
        inputs:
            Integer arrays by name, NCHW, any number of images.
        taps:
            Further tensors to return.

        Returns
        -------
        dict
            Outputs and taps by name, NCHW.

        Raises
        ------
        GraphError
            When an input is missing or has another type, layout or shape, or a tap does not exist.
        """
        values, images = check_inputs(self.graph, inputs)
        wanted = tuple(dict.fromkeys((*self.graph.outputs, *taps)))
        results = {name: self._result(name, images) for name in wanted}
        live = {name: array for name, array in results.items() if name not in self._plan.constants}
        slices = self._slices(images)
        if not (len(slices) == 1 and self._run_here(values, live, slices[0])):
            futures = [self._submit(values, live, bounds) for bounds in slices]
            for future in futures:
                future.result()
        return results

    def _run_here(self, values: Mapping[str, Array], results: Mapping[str, Array], bounds: tuple[int, int]) -> bool:
        """Run a lone slice on the caller's thread, unless another caller does so or torch would use threads for it."""
        if self._uses_torch and torch.get_num_threads() > 1:
            return False
        if not self._here.acquire(blocking=False):
            return False
        try:
            self._worker_here = self._worker_here or _Worker(self._plan, self._binds)
            self._worker_here.run(values, results, bounds)
        finally:
            self._here.release()
        return True

    def _result(self, name: str, images: int) -> Array:
        if name in self._plan.constants:
            return np.ascontiguousarray(logical(self._plan.constants[name]))
        if name not in self._types:
            raise GraphError(f"graph {self.graph.name!r} has no tensor {name!r}", remedy="name a node or an input")
        return np.empty((images, *self._types[name].shape[1:]), dtype=self._types[name].dtype)

    def _slices(self, images: int) -> list[tuple[int, int]]:
        """Bounds of slices, as equal as can be, a multiple of the threads in number where the batch allows it."""
        rounds = math.ceil(images / (self._plan.images * self.threads))
        count = min(images, rounds * self.threads)
        return [(images * i // count, images * (i + 1) // count) for i in range(count)]

    def _submit(
        self, values: Mapping[str, Array], results: Mapping[str, Array], bounds: tuple[int, int]
    ) -> Future[None]:
        return self._workers().submit(self._run_slice, values, results, bounds)

    def _workers(self) -> ThreadPoolExecutor:
        """The threads of this process (a forked child has none of its parent's)."""
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._local = threading.local()
                self._pool = (os.getpid(), single_threaded_pool(self.threads, "carkp-simulator"))
            return self._pool[1]

    def _run_slice(self, values: Mapping[str, Array], results: Mapping[str, Array], bounds: tuple[int, int]) -> None:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(self._plan, self._binds)
        worker.run(values, results, bounds)


@frozen
class StepCost:
    """What a node costs: its kind, multiplications per image, and seconds per image at best."""

    node: str
    kind: str
    macs: int
    seconds: float


def profile(executor: GraphExecutor, repeats: int = 10) -> list[StepCost]:
    """Time every node of a full slice on this thread, after one run to warm up; memory holds what it holds."""
    images = executor._plan.images
    program = list(_Worker(executor._plan, executor._binds).bind(images))
    best: dict[str, float] = {}
    for _ in range(repeats + 1):
        seconds: dict[str, float] = {}
        for step in program:
            start = time.perf_counter()
            for call in step.calls:
                call()
            seconds[step.node] = seconds.get(step.node, 0.0) + time.perf_counter() - start
        best = {name: min(value, best.get(name, value)) for name, value in seconds.items()}
    return [_cost(node, executor._types, best[node.name] / images) for node in executor._plan.steps]


def _cost(node: Node, types: Mapping[str, TensorType], seconds: float) -> StepCost:
    op = node.op
    if not isinstance(op, (Conv2d, ConvTranspose2d)):
        return StepCost(node.name, op.kind, 0, seconds)
    transposed = isinstance(op, ConvTranspose2d)
    height, width = (types[node.inputs[0]] if transposed else node.type).shape[2:]
    kh, kw = op.weight.shape[2:]
    kind = op.kind
    if isinstance(op, Conv2d):
        kind = "depthwise convolution" if op.depthwise else f"convolution {kh}x{kw}"
    return StepCost(node.name, kind, int(op.weight.size) * height * width, seconds)


@frozen(eq=False)
class _Step:
    """Calls of which the last ones make images ``begin`` to ``end`` of ``node``."""

    node: str
    begin: int
    end: int
    calls: tuple[Run, ...]


class _Worker:
    """One thread's arena, and the calls bound to it for each number of images met."""

    def __init__(self, plan: Plan, binds: Sequence[Bind]) -> None:
        self._plan = plan
        self._binds = binds
        room = np.empty(plan.arena_bytes + ALIGNMENT + MARGIN, dtype=np.uint8)
        begin = -room.ctypes.data % ALIGNMENT
        self._arena = room[begin : begin + plan.arena_bytes]
        self._scratch = Scratch(SCRATCH_BYTES)
        self._programs: dict[tuple[int, frozenset[str]], list[_Step]] = {}

    def run(self, values: Mapping[str, Array], results: Mapping[str, Array], bounds: tuple[int, int]) -> None:
        """Run images ``bounds`` of the batch and set down what is wanted in ``results``."""
        first, last = bounds
        images = last - first
        for name, value in values.items():
            if name in self._plan.rooms:
                np.copyto(self._view(name, 0, images), stored(value[first:last]))
        # What shares memory is set down when its owner is made.
        wanted: dict[str, list[str]] = {}
        for name in results:
            wanted.setdefault(self._plan.owners[name], []).append(name)
        for name in set(wanted) & set(values):
            self._set_down(wanted[name], results, first, (0, images))
        for step in self._program(images, frozenset(wanted)):
            for call in step.calls:
                call()
            if step.node in wanted:
                self._set_down(wanted[step.node], results, first, (step.begin, step.end))

    def _program(self, images: int, wanted: frozenset[str]) -> list[_Step]:
        """The steps of a slice, those before one that is wanted, or before the end, as one."""
        key = (images, wanted)
        if key not in self._programs:
            steps: list[_Step] = []
            calls: list[Run] = []
            for step in self.bind(images):
                calls += step.calls
                if step.node in wanted:
                    steps.append(evolve(step, calls=joined(calls)))
                    calls = []
            last = _Step("", 0, 0, joined(calls))
            self._programs[key] = [*steps, last] if calls else steps
        return self._programs[key]

    def _set_down(self, names: Sequence[str], results: Mapping[str, Array], first: int, part: tuple[int, int]) -> None:
        begin, end = part
        for name in names:
            target = results[name][first + begin : first + end]
            source = logical(self._view(self._plan.owners[name], begin, end))
            np.copyto(target, source if source.shape == target.shape else source.reshape(target.shape))

    def _view(self, name: str, begin: int, end: int) -> Array:
        return self._plan.rooms[self._plan.owners[name]].view(self._arena, begin, end)

    def bind(self, images: int) -> Iterator[_Step]:
        """The program for a slice, stage by stage and part by part."""
        types = self._plan.graph.types()
        for stage in self._plan.stages:
            for begin in range(0, images, stage.images):
                end = min(begin + stage.images, images)
                for index in range(stage.first, stage.last):
                    node = self._plan.steps[index]
                    inputs = [self._input(name, types, begin, end) for name in node.inputs]
                    self._scratch.reset()
                    calls = self._binds[index](inputs, self._view(node.name, begin, end), self._scratch)
                    yield _Step(node.name, begin, end, tuple(calls))

    def _input(self, name: str, types: Mapping[str, Any], begin: int, end: int) -> Array:
        """A step's stored input; what shares memory with another tensor has its own shape."""
        if name in self._plan.constants:
            value = self._plan.constants[name]
            size = (end - begin) * value.size
            copy = np.empty(size + MARGIN, dtype=value.dtype)[:size].reshape(end - begin, *value.shape[1:])
            np.copyto(copy, value)
            return copy
        return self._view(name, begin, end).reshape(end - begin, *stored_shape(types[name].shape)[1:])
