"""comfy_api.latest.io's schema and node by hand: checked and told in the first version's form, as in the original."""

import inspect
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["ComfyExtension", "ComfyNode", "Hidden", "HiddenHolder", "NodeOutput", "Schema"]


class Hidden(StrEnum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    search_aliases: list = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    price_badge: Any = None
    not_idempotent: bool = False
    enable_expand: bool = False
    accept_all_inputs: bool = False
    essentials_category: str | None = None
    has_intermediate_output: bool = False

    def validate(self):
        for what, ids in (("Input", [i.id for i in self.inputs]), ("Output", [o.id for o in self.outputs])):
            twice = [name for name, count in Counter(ids).items() if count > 1]
            if twice:
                raise ValueError(f"{what} ids must be unique, but {twice} are not.")
        for part in (*self.inputs, *self.outputs):
            part.validate()

    def finalize(self):
        if self.is_output_node:
            self.hidden += [h for h in (Hidden.prompt, Hidden.extra_pnginfo) if h not in self.hidden]
        for place, output in enumerate(self.outputs):
            output.id = output.id or f"_{place}_{output.io_type}_"

    def get_v1_info(self, cls):
        inputs: dict[str, dict] = {"required": {}}
        for one in self.inputs:
            said = one.as_dict()
            said.pop("optional", None)
            inputs.setdefault("optional" if one.optional else "required", {})[one.id] = (one.get_io_type(), said)
        for hidden in self.hidden:
            inputs.setdefault("hidden", {})[hidden.name] = (hidden.value,)
        return NodeInfoV1(
            input=inputs,
            input_order={key: list(value) for key, value in inputs.items()},
            is_input_list=self.is_input_list,
            output=[o.io_type for o in self.outputs],
            output_is_list=[o.is_output_list for o in self.outputs],
            output_name=[o.display_name or o.io_type for o in self.outputs],
            output_tooltips=[o.tooltip or None for o in self.outputs],
            name=self.node_id,
            display_name=self.display_name,
            description=self.description,
            category=self.category,
            output_node=self.is_output_node,
            search_aliases=self.search_aliases or None,
        )


@dataclass
class NodeInfoV1:
    input: dict
    input_order: dict
    is_input_list: bool
    output: list
    output_is_list: list
    output_name: list
    output_tooltips: list
    name: str
    display_name: str | None
    description: str
    category: str
    output_node: bool
    search_aliases: list | None


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self):
        return self.args or None


class HiddenHolder:
    def __init__(self, unique_id=None, extra_pnginfo=None):
        self.unique_id, self.extra_pnginfo = unique_id, extra_pnginfo


class ComfyNode:
    SCHEMA = None
    hidden: HiddenHolder | None = None

    @classmethod
    def GET_SCHEMA(cls):
        for name in ("define_schema", "execute"):
            assert inspect.ismethod(getattr(cls, name, None)), f"{cls.__name__} has no {name}"
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        cls.SCHEMA = schema
        return schema

    @classmethod
    def INPUT_TYPES(cls):
        return cls.GET_NODE_INFO_V1()["input"]

    @classmethod
    def GET_NODE_INFO_V1(cls):
        return asdict(cls.GET_SCHEMA().get_v1_info(cls))


class ComfyExtension:
    async def on_load(self):
        return None

    async def get_node_list(self):
        raise NotImplementedError
