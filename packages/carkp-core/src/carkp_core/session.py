"""A session: one config, resolved and checked, and the objects that commands build from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from carkp_core import derive
from carkp_core.backend import CompileOptions
from carkp_core.config.check import require_sound
from carkp_core.config.find import find_config
from carkp_core.config.located import LocatedDict
from carkp_core.config.overrides import apply_dotted, parse_overrides
from carkp_core.config.recipe import Recipe, build_value, where
from carkp_core.config.show import show
from carkp_core.config.source import run_config
from carkp_core.context import Context
from carkp_core.errors import ConfigError
from carkp_core.plugins import PluginManager, plugin_manager
from carkp_core.stages import ROOTS, STAGES, TRAINERS

if TYPE_CHECKING:
    import torch

    from carkp_core.ir.graph import Graph

DEFAULT_MARCH = "bayes"


@frozen(eq=False)
class Session:
    """A config ready to be used. Make one with ``open_session``."""

    config: LocatedDict
    context: Context

    def recipe(self, node: dict[str, Any] | None, name: str) -> Recipe:
        """A checked recipe of a config dict.

        Raises
        ------
        ConfigError
            When the config lacks it, or something in it is wrong.
        """
        if not isinstance(node, dict):
            raise ConfigError(
                f"the config has no {name!r}",
                where=str(self.context.config_path),
                allowed=", ".join(str(key) for key in self.config if isinstance(self.config[key], dict)),
                remedy="see docs/config.md for the names that a config may assign",
            )
        require_sound(node, name, self.context)
        return Recipe.of(node, name, self.context)

    def trainer(self, stage: str) -> Any:
        """Build the stage's trainer."""
        if stage == "int_infer" and not any(self.config.get(name) for name in TRAINERS[stage]):
            if self.config.get("calibration_trainer") is None:
                self.recipe(None, "calibration_trainer")
            node: dict[str, Any] | None = derive.integer_trainer(self.config, self.integer_source())
        else:
            node = derive.trainer_node(self.config, stage)
        return self.recipe(node, TRAINERS[stage][0]).build()

    def predictor(self, stage: str) -> Any:
        """Build the stage's predictor."""
        return self.recipe(derive.predictor_node(self.config, stage), f"{stage}_predictor").build()

    def integer_source(self) -> str:
        """The stage that int_infer converts: qat when it was trained from the present calibration, else calibration."""
        from carkp_core.train.checkpoint import started_from

        if self.config.get("qat_trainer") is None:
            return "calibration"
        qat, calibration = self.context.checkpoint("qat"), self.context.checkpoint("calibration")
        return "qat" if qat.exists() and started_from(qat, calibration) else "calibration"

    def deploy(self) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        """The network to deploy, untrained and in evaluation mode, and one example batch of its inputs."""
        model = self.recipe(derive.deploy_node(self.config), "deploy_model").build().eval()
        return getattr(model, "network", model), self.deploy_inputs()

    def deploy_inputs(self) -> dict[str, torch.Tensor]:
        """One example batch of the network's inputs by name, from ``deploy_inputs`` or the validation transforms."""
        return example_inputs(self.config, self.context)

    def compile_options(self, **changes: Any) -> CompileOptions:
        """``compile_cfg`` with what it leaves out; ``changes`` that are not None win."""
        given = dict(self.config.get("compile_cfg") or {})
        known = {field.name for field in attrs.fields(CompileOptions)}
        for key in given:
            if key not in known:
                raise ConfigError(
                    f"compile_cfg has no key {key!r}",
                    where=where(self.config.get("compile_cfg"), key, "compile_cfg"),  # type: ignore[arg-type]
                    allowed=", ".join(sorted(known)),
                )
        given |= {key: value for key, value in changes.items() if value is not None}
        given["march"] = self.context.march
        given.setdefault("name", self.context.task)
        if "hbm" not in given:
            given["hbm"] = Path(given.get("out_dir", self.context.ckpt_dir / "compile")) / "model.hbm"
        given.setdefault("out_dir", Path(given["hbm"]).parent)
        return _compile_options(given)

    def integer_graph(self) -> Graph:
        """The integer model that ``train --stage int_infer`` wrote.

        Raises
        ------
        CheckpointError
            When it does not exist yet, or was converted for another march.
        """
        from carkp_core.quant.integer_model import read_integer_graph

        return read_integer_graph(self.context)

    def fast_graph(self) -> Graph:
        """The deployed network with random weights, quantized by random calibration; unknown operators stay opaque."""
        from carkp_core.quant.fast import fast_graph
        from carkp_core.train.seeding import seeded

        with seeded(self.context.seed):
            network, inputs = self.deploy()
            return fast_graph(network, inputs, self.context)

    def infer(self) -> Any:
        """Build ``infer_cfg``: what turns an image into a drawn and a written result."""
        return self.recipe(self.config.get("infer_cfg"), "infer_cfg").build()

    def build(self, name: str, **injected: Any) -> Any:
        """Build any recipe of the config by name."""
        return self.recipe(self.config.get(name), name).build(**injected)

    def for_stage(self, stage: str, **changes: Any) -> Session:
        """The same config in another stage."""
        return attrs.evolve(self, context=attrs.evolve(self.context, stage=stage, **changes))


def open_session(
    config: str,
    opts: Sequence[str] = (),
    march: str | None = None,
    *,
    stage: str = "",
    resume: bool = False,
    threads: int | None = None,
    plugins: PluginManager | None = None,
) -> Session:
    """Find, run, override and check a config.

    Raises
    ------
    ConfigError
        For anything wrong in the config or the overrides, with file, line, key path and a suggestion.
    """
    plugins = plugins or plugin_manager()
    path = find_config(config, plugins)
    names, dotted = parse_overrides(opts)
    tree = run_config(path, names)
    apply_dotted(tree, dotted)
    context = make_context(tree, path, march, plugins)
    context = attrs.evolve(context, stage=stage, resume=resume, threads=threads, config_name=config)
    session = Session(tree, context)
    session = Session(tree, attrs.evolve(context, compile_options=session.compile_options))
    _check_everything(session)
    return session


def make_context(tree: LocatedDict, path: Path, march: str | None, plugins: PluginManager) -> Context:
    """The surroundings that a resolved config names."""
    task = str(tree.get("task_name") or path.stem)
    scale = derive.pixel_scale(tree)
    context = Context(
        plugins=plugins,
        catalog=plugins.catalog(),
        backends=plugins.backends(),
        march=march or _march_of(tree),
        task=task,
        ckpt_dir=Path(tree.get("ckpt_dir") or Path("tmp_models") / task),
        seed=int(tree.get("seed") or 0),
        config_path=path,
        config_text="\n".join(show(tree)) + "\n",
        network_digest=_network_digest(tree),
        input_scales=_input_scales(tree) or ({} if scale is None else {"img": scale}),
    )
    return attrs.evolve(context, example_inputs=lambda: example_inputs(tree, context))


def example_inputs(config: Mapping[str, Any], context: Context) -> dict[str, torch.Tensor]:
    """One example batch of the network's inputs: the config's ``deploy_inputs``, else zeros of the validation size."""
    import torch

    given = config.get("deploy_inputs")
    if given:
        built = build_value(dict(given), "deploy_inputs", context)
        return {name: _example(value, where(given, name, f"deploy_inputs.{name}")) for name, value in built.items()}
    size = derive.network_input_hw(dict(config))
    if size is None:
        raise ConfigError(
            "the network's input size is not known",
            where=str(context.config_path),
            allowed="a validation transform with `size` or `img_scale`, or deploy_inputs",
        )
    return {"img": torch.zeros(1, 3, *size)}


def _example(value: Any, place: str) -> torch.Tensor:
    """A tensor as given, or zeros of a given shape."""
    import torch

    if isinstance(value, dict):
        value = value.get("tensor", value.get("shape"))
    if isinstance(value, (tuple, list)) and value and all(isinstance(size, int) and size > 0 for size in value):
        return torch.zeros(*value)
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        raise ConfigError(
            "an example input is a tensor or a shape",
            where=place,
            seen=repr(value),
            allowed="(1, 3, H, W), torch.zeros(1, 3, H, W), or dict(tensor=... or shape=..., scale=...)",
        )
    return value


def _network_digest(tree: LocatedDict) -> str:
    """SHA-256 of the deployed network's config, wherever it was written."""
    node = derive.deploy_node(tree)
    if node is None:
        return ""
    text = "\n".join(show(LocatedDict(network=node), origins=False))
    return hashlib.sha256(text.encode()).hexdigest()


def _input_scales(tree: LocatedDict) -> dict[str, float]:
    given = tree.get("deploy_inputs") or {}
    return {k: float(v["scale"]) for k, v in given.items() if isinstance(v, dict) and v.get("scale") is not None}


def _march_of(tree: LocatedDict) -> str:
    top, compiled = tree.get("march"), (tree.get("compile_cfg") or {}).get("march")
    if top and compiled and top != compiled:
        raise ConfigError(
            "march and compile_cfg.march name different marches",
            where=where(tree, "march", "march"),
            seen=f"{top!r} and {compiled!r}",
            remedy="keep one of them, or give --march",
        )
    return str(top or compiled or DEFAULT_MARCH)


def _check_everything(session: Session) -> None:
    for name in ROOTS:
        if isinstance(session.config.get(name), dict):
            require_sound(session.config[name], name, session.context)


def _compile_options(given: dict[str, Any]) -> CompileOptions:
    allowed = {"opt": ("O0", "O1", "O2"), "input_source": ("ddr", "pyramid", "resizer")}
    for key, values in allowed.items():
        if key in given and given[key] not in values:
            raise ConfigError(
                f"compile_cfg.{key} is not known",
                seen=repr(given[key]),
                allowed=", ".join(values),
                where=f"compile_cfg.{key}",
            )
    sram = given.get("sram_bytes")
    if sram is not None and (not isinstance(sram, int) or isinstance(sram, bool) or sram <= 0):
        raise ConfigError(
            "compile_cfg.sram_bytes must be a positive whole number of bytes",
            seen=repr(sram),
            where="compile_cfg.sram_bytes",
        )
    return CompileOptions(**given)


def require_stage(stage: str) -> str:
    """The stage, once it is known to be one."""
    if stage not in STAGES:
        raise ConfigError("no such stage", where="--stage", seen=stage, allowed=", ".join(STAGES))
    return stage
