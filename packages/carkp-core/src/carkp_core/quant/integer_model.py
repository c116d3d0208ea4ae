"""Reading back the integer model that ``train --stage int_infer`` wrote."""

from __future__ import annotations

from pathlib import Path

from carkp_core.context import Context
from carkp_core.errors import CheckpointError
from carkp_core.ir.binary import read
from carkp_core.ir.graph import Graph
from carkp_core.ir.operators import OPERATIONS
from carkp_core.quant.lower import operations


def read_integer_graph(context: Context, path: Path | None = None) -> Graph:
    """The integer model of the context's checkpoint folder (or of ``path``), plugins' operators included.

    Raises
    ------
    CheckpointError
        When there is none yet, or it was converted for another march or from another network.
    GraphError
        When its file is damaged.
    """
    path = path or context.graph_path()
    if not path.exists():
        raise CheckpointError(
            "there is no integer model yet",
            where=str(path),
            remedy=f"run `carkp train --stage int_infer --config {context.config_name}` first",
        )
    graph = read(path, (*OPERATIONS, *operations(context)))
    made_for = graph.metadata.get("march", context.march)
    if made_for != context.march:
        raise CheckpointError(
            f"the integer model was converted for march {made_for!r}, not for {context.march!r}",
            where=str(path),
            remedy=f"use --march {made_for}, or calibrate and convert again with --march {context.march}",
        )
    made_of = graph.metadata.get("network")
    if made_of and context.network_digest and made_of != context.network_digest:
        raise CheckpointError(
            "the integer model was converted from another network",
            where=str(path),
            seen=f"made of {graph.metadata.get('source_path', 'another model')}",
            allowed=f"the network that {context.config_name or 'the config'} describes",
            remedy="use the config that it was made with, another ckpt_dir, or train and convert again",
        )
    return graph
