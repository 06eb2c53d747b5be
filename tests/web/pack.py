"""What the pack itself tells of its nodes and widgets, asked of it in the pretended host of tests/nodes."""

import asyncio
import importlib
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/nodes"))


def told(nodes, python_module):
    """As ComfyUI would answer.

    Args:
        nodes: the ids of those that are asked for.

    Returns:
        Their part of /object_info, and the answer of /scion/widgets.
    """
    import describe
    import fakes

    with tempfile.TemporaryDirectory() as base, fakes.installed(fakes.Host(Path(base) / "comfy")):
        pack = describe.load(ROOT)
        infos = {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in asyncio.run(describe.nodes_of(pack))}
        answer = importlib.import_module(f"{pack.__name__}.nodes.told_widgets").told()
    return {name: {**infos[name], "python_module": python_module} for name in nodes}, answer
