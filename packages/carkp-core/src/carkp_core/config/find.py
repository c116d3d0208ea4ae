"""Finding the config that ``--config`` means."""

from __future__ import annotations

import difflib
from pathlib import Path

from carkp_core.errors import ConfigError
from carkp_core.plugins import PluginManager
from carkp_core.siblings import installation_of


def find_config(config: str, plugins: PluginManager) -> Path:
    """The file of a path, or of a shipped config's name.

    A path whose file does not exist but whose stem is a shipped name finds the shipped one, so that the
    tutorial's ``configs/keypoint/<name>.py`` works anywhere.

    Raises
    ------
    ConfigError
        When neither exists, or two plugins ship the name.
    """
    path = Path(config)
    if path.is_file():
        return path
    shipped = plugins.configs()
    offers = shipped.get(path.stem if path.suffix == ".py" else config, ())
    if len(offers) > 1:
        raise ConfigError(
            f"config {config!r} is shipped by more than one package",
            seen=", ".join(f"{file} of {provider}" for provider, file in offers),
            remedy="give the path of the file",
        )
    if offers:
        return Path(offers[0][1])
    if path.is_dir():
        raise ConfigError("a config is a file", where=f"--config {config}", seen="a folder", remedy="name a file in it")
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    raise ConfigError(
        "no such config" + (f"; did you mean {close[0]!r}?" if close else ""),
        where=f"--config {config}",
        allowed="the path of a file, or one of: " + (", ".join(sorted(shipped)) or "(no package ships a config)"),
        remedy=installation_of(path.stem) or "`carkp config init NAME` writes a shipped config here",
    )
