"""Trace: run the network once on an example and write down every torch call that touches the input.

Before: a network of modules, whatever Python they hold. After: a ``torch.fx`` graph of function calls::

    class Net(nn.Module):                      img    = placeholder
        def forward(self, img):        ->      conv2d = torch.conv2d(img, stem.weight, stem.bias, ...)
            x = self.stem(img)                 relu   = F.relu(conv2d)
            return F.relu(x) + x               add    = Tensor.add(relu, conv2d)

The example is a tensor subclass, so shapes are numbers, ``isinstance`` and loops work as they do without tracing, and
module, functional and method forms of an operation all arrive as functions. Parameters and buffers become
``get_attr`` nodes, tensors that do not depend on the input become constants. The example has two samples, which tells
dimensions that follow the batch from those that do not. A choice that depends on values cannot be traced; the error
names the module and the line.

Each node's ``meta`` holds ``module_path``, ``source`` (file and line of the user's code), ``value`` (shape and dtype).
"""

from __future__ import annotations

import itertools
import operator
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from carkp_core.errors import QuantizationError
from carkp_core.ir.graph import Source

#: Samples in the traced example.
TRACE_BATCH = 2

#: Tensor methods that turn values into Python objects: what follows may depend on the image.
_VALUE_READS = {
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__", "item", "tolist", "numpy",
    "__array__", "nonzero", "equal", "allclose", "is_nonzero", "masked_select", "unique",
}  # fmt: skip

#: Calls that take a tensor for its shape and type only: their results are constants.
_MAKERS = ("zeros_like", "ones_like", "full_like", "empty_like", "new_")

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_TRACER = os.path.abspath(__file__)


@frozen
class TensorFact:
    """What is known of a traced tensor: its shape with N = 2 and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@frozen(eq=False)
class Trace:
    """A traced network: the graph, its constants, and how the outputs were nested."""

    graph: fx.Graph
    #: ``get_attr`` target -> parameter, buffer or constant.
    tensors: Mapping[str, Tensor]
    #: Leaf modules that were kept whole, by path.
    modules: Mapping[str, nn.Module]
    input_names: tuple[str, ...]
    #: What the network returned for the example, to hold the graph against.
    result: Any


class TracedTensor(Tensor):
    """A real tensor that tells its recorder what is done with it."""

    recorder: _Recorder
    node: fx.Node

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for argument in _flatten((args, kwargs)):
            if isinstance(argument, TracedTensor) and hasattr(argument, "recorder"):
                return argument.recorder.call(func, tuple(args), dict(kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)


def trace(
    network: nn.Module,
    example_inputs: Mapping[str, Tensor],
    is_leaf: Callable[[nn.Module], bool] = lambda module: False,
) -> Trace:
    """Trace a network.

    Parameters
    ----------
    network:
        Called with the example inputs in order, in evaluation mode.
    example_inputs:
        One tensor (1, ...) for each input, by name.
    is_leaf:
        Modules to keep whole: those that a plugin's operator recognises.

    Raises
    ------
    QuantizationError
        When the network fails on the example, or chooses by values. Names the module path and the line.
    """
    recorder = _Recorder(network, is_leaf)
    inputs = [recorder.placeholder(name, _two_samples(value)) for name, value in example_inputs.items()]
    was_training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with recorder.watch_modules(), torch.no_grad():
            result = network(*inputs)
    except QuantizationError:
        raise
    except Exception as error:
        raise QuantizationError(
            "the network fails on the example input",
            where=str(recorder.place(error)) or type(network).__name__,
            seen=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
            allowed=", ".join(f"{name} {tuple(value.shape)}" for name, value in example_inputs.items()),
            remedy="check deploy_inputs (or the validation transforms' size) against what the network takes",
        ) from error
    finally:
        for module, training in was_training.items():
            module.training = training
    recorder.output(result)
    return Trace(recorder.graph, recorder.tensors, recorder.kept, tuple(example_inputs), _plain_structure(result))


class _Recorder:
    def __init__(self, network: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.kept: dict[str, nn.Module] = {}
        self._network = network
        self._is_leaf = is_leaf
        self._paths: list[str] = []
        self._kinds: list[type[nn.Module]] = []
        self._inside_leaf = 0
        self._last_place = Source()
        named = itertools.chain(network.named_parameters(), network.named_buffers())
        self._names = {id(tensor): name for name, tensor in named}
        self._attributes: dict[str, fx.Node] = {}

    def placeholder(self, name: str, value: Tensor) -> TracedTensor:
        return self._wrap(value, self._node("placeholder", name, (), {}, name), value)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Execute a torch call and, when it makes tensors, record it."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # an attribute such as x.shape or x.mT
            name = func.__self__.__name__  # type: ignore[attr-defined]
        self._last_place = self.place()
        if name in _VALUE_READS and not self._inside_leaf:
            raise QuantizationError(
                "the network reads values of a tensor, so its course depends on the image",
                where=str(self._last_place),
                seen=f"Tensor.{name}",
                remedy="choose by shapes or settings, or move this part out of the deployed model",
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if name == "__setitem__" and not self._inside_leaf:
            raise QuantizationError(
                "the network assigns to part of a tensor",
                where=str(self._last_place),
                seen="x[...] = value",
                remedy="build the tensor with torch.cat, torch.stack or F.pad instead",
            )
        if not _has_tensor(result) or self._inside_leaf or name.startswith(_MAKERS):
            return result
        return self._record(func, name, args, kwargs, result)

    def output(self, result: Any) -> None:
        self.graph.output(tree_map(self._argument, _plain_structure(result)))

    def place(self, error: BaseException | None = None) -> Source:
        """The innermost module and the user's line that is being executed, or that raised an error."""
        path = self._paths[-1] if self._paths else ""
        for code, line in _running() if error is None else _raising(error):
            file = os.path.abspath(code.co_filename)
            if code is trace.__code__:
                break  # the rest called the tracer
            if not file.startswith((_TORCH, _TRACER, "<")):
                return Source(path, file, line)
        return Source(path)

    @contextmanager
    def watch_modules(self) -> Iterator[None]:
        """Follow which module is running, and record leaves whole, by hooks that are taken off again."""
        handles = []
        for path, module in self._network.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(path), with_kwargs=True, prepend=True))
            handles.append(module.register_forward_hook(self._leave(path), with_kwargs=True, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._paths.append(path)
            self._kinds.append(type(module))
            self._inside_leaf += self._is_leaf(module)

        return hook

    def _leave(self, path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
            try:
                if not self._is_leaf(module):
                    return None
                self._inside_leaf -= 1
                if self._inside_leaf or not _has_tensor(result):
                    return None
                self.kept[path] = module
                self._last_place = self.place()
                return self._record(path, path.rpartition(".")[2], args, kwargs, result)
            finally:
                # After an error the stack stays, to say where it happened.
                if sys.exc_info()[0] is None:
                    self._paths.pop()
                    self._kinds.pop()

        return hook

    def _record(self, target: Any, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        kind = "call_module" if isinstance(target, str) else "call_function"
        plain_args, plain_kwargs = tree_map(self._argument, (tuple(args), dict(kwargs)))
        node = self._node(kind, target, plain_args, plain_kwargs, name.strip("_"))
        node.meta["name"] = name.strip("_")
        if isinstance(result, Tensor):
            return self._wrap(result, node, next((arg for arg in args if arg is result), None))
        node.meta["value"] = None
        pairs = enumerate(result)
        parts = [self._item(node, index, part) if isinstance(part, Tensor) else part for index, part in pairs]
        # torch.max and its kin return tuples with names, which are made from one sequence as lists are.
        made: Any = type(result)
        return made(parts) if made in (list, tuple) or made.__module__ == "torch.return_types" else tuple(parts)

    def _item(self, node: fx.Node, index: int, part: Tensor) -> TracedTensor:
        item = self._node("call_function", operator.getitem, (node, index), {}, node.name)
        return self._wrap(part, item, None)

    def _wrap(self, value: Tensor, node: fx.Node, same: Tensor | None) -> TracedTensor:
        node.meta["value"] = TensorFact(tuple(value.shape), value.dtype)
        # What happened in place shows through the name that the user goes on using.
        if isinstance(same, TracedTensor):
            same.node = node
            return same
        traced = value.detach().as_subclass(TracedTensor)
        traced.recorder, traced.node = self, node
        return traced

    def _argument(self, value: Any) -> Any:
        if isinstance(value, TracedTensor) and hasattr(value, "node"):
            return value.node
        if isinstance(value, Tensor):
            return self._attribute(value)
        return value

    def _attribute(self, value: Tensor) -> fx.Node:
        name = self._names.get(id(value))
        if name is None:
            name = f"_constant_{len(self.tensors)}"
            self._names[id(value)] = name
        if name not in self._attributes:
            self.tensors[name] = value
            node = self._node("get_attr", name, (), {}, name.replace(".", "_"))
            node.meta["value"] = TensorFact(tuple(value.shape), value.dtype)
            self._attributes[name] = node
        return self._attributes[name]

    def _node(self, kind: str, target: Any, args: Any, kwargs: Any, name: str) -> fx.Node:
        node = self.graph.create_node(kind, target, args, kwargs, name or None)
        node.meta["source"] = self._last_place
        node.meta["module_path"] = self._last_place.module_path
        node.meta["module_is_torch"] = bool(self._kinds) and self._kinds[-1].__module__.startswith("torch.nn.")
        return node


def _running() -> Iterator[tuple[CodeType, int]]:
    """Code and line of each frame, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _raising(error: BaseException) -> Iterator[tuple[CodeType, int]]:
    """Code and line of each frame that an error came through, the innermost first."""
    return ((frame.f_code, line) for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))))


def _two_samples(value: Tensor) -> Tensor:
    return value.detach().cpu()[:1].expand(TRACE_BATCH, *value.shape[1:]).clone()


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flatten(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _flatten(item)
    else:
        yield value


def _has_tensor(value: Any) -> bool:
    return any(isinstance(item, Tensor) for item in _flatten(value))


def _plain_structure(value: Any) -> Any:
    """Lists, tuples and dicts as such; anything else that holds tensors cannot leave the network."""
    if isinstance(value, Tensor) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain_structure(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        made = [_plain_structure(item) for item in value]
        return made if isinstance(value, list) else tuple(made)
    raise QuantizationError(
        "the network returns something that is no tensor",
        seen=type(value).__name__,
        allowed="tensors, and lists, tuples and dicts of them",
        remedy="deploy the part of the network that ends in tensors",
    )
