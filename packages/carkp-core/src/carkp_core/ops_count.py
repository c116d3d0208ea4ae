"""Count a network's multiply-accumulates and parameters, module by module.

The network is run once on example inputs while every tensor operation is watched, so functional forms count as well as
modules. Convolutions (transposed ones too), linear layers, matrix products and attention have multiply-accumulates by
torch's own formulas; pooling, activations, batch norm and element-wise arithmetic have none. A transposed convolution
counts every product of an input value with a weight, also those that its padding then crops.

Parameters are counted once, with the module that holds them; batch norm's weight and bias are among them, its running
statistics are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from carkp_core.errors import ConfigError

ROOT = "(root)"


@frozen
class ModuleOps:
    """What one module does itself, without its children."""

    path: str
    kind: str
    #: How often it was called; more than once where a module is reused.
    calls: int
    params: int
    macs: int
    #: Shape of its last output, if that is one tensor.
    output_shape: tuple[int, ...] | None


@frozen
class OpsReport:
    """The counts of a network. Modules without parameters and multiply-accumulates are left out."""

    modules: tuple[ModuleOps, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(module.macs for module in self.modules)

    @property
    def params(self) -> int:
        """Parameters, each counted once."""
        return sum(module.params for module in self.modules)

    def grouped(self, depth: int) -> OpsReport:
        """Add up modules whose paths agree in their first ``depth`` parts."""
        groups: dict[str, list[ModuleOps]] = {}
        for module in self.modules:
            groups.setdefault(".".join(module.path.split(".")[:depth]), []).append(module)
        return OpsReport(tuple(_sum_up(path, found) for path, found in groups.items()))

    def to_json(self) -> dict[str, Any]:
        """Return ``{"macs", "params", "modules": [{"path", "kind", "calls", "params", "macs", "output_shape"}]}``."""
        rows = [
            {
                "path": module.path,
                "kind": module.kind,
                "calls": module.calls,
                "params": module.params,
                "macs": module.macs,
                "output_shape": None if module.output_shape is None else list(module.output_shape),
            }
            for module in self.modules
        ]
        return {"macs": self.macs, "params": self.params, "modules": rows}


def count_ops(model: nn.Module, example_inputs: Mapping[str, Tensor]) -> OpsReport:
    """Count ``model`` on ``example_inputs``, which are passed by position, in evaluation mode.

    The model is left as it was: training flags, running statistics and hooks.

    Raises
    ------
    ConfigError
        The model doesn't run on these inputs; the module where it stopped is named.
    """
    counter = _Counter(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), counter.watching_modules(), counter:
            model(*example_inputs.values())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            "the network does not run on the example input",
            where=counter.current,
            seen=f"{', '.join(f'{k} {list(v.shape)}' for k, v in example_inputs.items())}: {_first_line(error)}",
            remedy="check the input size (deploy_inputs, or the validation transforms) against the network",
        ) from error
    finally:
        for module in training:
            module.training = True
    return counter.report()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up multiply-accumulates for the module that is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {module: name or ROOT for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._macs: dict[nn.Module, int] = {}
        self._calls: dict[nn.Module, int] = {}
        self._shapes: dict[nn.Module, tuple[int, ...] | None] = {}
        self._root = model

    @property
    def current(self) -> str:
        """Path of the module that is running."""
        return self._names[self._running[-1] if self._running else self._root]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = _flops_formula(func)
        if formula is not None:
            module = self._running[-1] if self._running else self._root
            self._macs[module] = self._macs.get(module, 0) + formula(*args, **kwargs, out_val=out) // 2
        return out

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Know, while the model runs, which of its modules is running."""
        handles = [
            handle
            for module in self._names
            for handle in (module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _args: Any) -> None:
        self._running.append(module)
        self._calls[module] = self._calls.get(module, 0) + 1
        self._shapes.setdefault(module, None)  # keeps modules in the order of their first call

    def _leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        while self._running.pop() is not module:
            pass
        self._shapes[module] = tuple(output.shape) if isinstance(output, Tensor) else None

    def report(self) -> OpsReport:
        """Put the counts in the order in which modules were called, those never called last."""
        params: dict[nn.Module, int] = {}
        seen: set[Tensor] = set()
        for module in self._names:
            own = [p for p in module.parameters(recurse=False) if p not in seen]
            seen.update(own)
            params[module] = sum(p.numel() for p in own)
        order = [*self._shapes, *(module for module in self._names if module not in self._shapes)]
        rows = (
            ModuleOps(
                path=self._names[module],
                kind=type(module).__name__,
                calls=self._calls.get(module, 0),
                params=params[module],
                macs=self._macs.get(module, 0),
                output_shape=self._shapes.get(module),
            )
            for module in order
            if params[module] or self._macs.get(module)
        )
        return OpsReport(tuple(rows))


def _flops_formula(func: Any) -> Any:
    packet = getattr(func, "_overloadpacket", None)
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        packet = torch.ops.aten._scaled_dot_product_flash_attention
    return flop_registry.get(packet)


def _sum_up(path: str, modules: list[ModuleOps]) -> ModuleOps:
    if len(modules) == 1:
        return modules[0]
    return ModuleOps(
        path=path,
        kind=f"{len(modules)} modules",
        calls=sum(module.calls for module in modules),
        params=sum(module.params for module in modules),
        macs=sum(module.macs for module in modules),
        output_shape=modules[-1].output_shape,
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
