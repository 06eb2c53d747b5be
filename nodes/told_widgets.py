"""What the page is told of widgets: how each preset fills them, which do nothing beside which, and what they set."""

from typing import Any

from ..trainer_core.idle_settings import RULES, Among, Other, Rule
from ..trainer_core.presets import PRESETS
from . import load_dataset, train_config
from .widgets import Widget, named_as_widgets

CONFIG, DATASET = "ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"
NODES = {CONFIG: train_config.WIDGETS, DATASET: [*load_dataset.WIDGETS, load_dataset.MASK_FOLDER]}
MORE = "dataset.folders"
"""In the graph these come through the dataset node's input `more`."""


def told() -> dict[str, Any]:
    return {"presets": presets(), "idle": idle(), "settings": settings()}


def settings() -> dict[str, tuple[str, str]]:
    """Node and widget that stand for each setting, by its dotted name."""
    return {widget.setting: (node, widget.id) for node, widgets in NODES.items() for widget in widgets}


def presets() -> dict[str, dict[str, Any]]:
    """The config node's widgets by id, as each preset fills them, by its name."""
    widgets = {widget.setting: widget for widget in train_config.WIDGETS}
    return {
        name: {widgets[setting].id: widgets[setting].shown(value) for setting, value in values.items()}
        for name, values in PRESETS.items()
    }


def idle() -> dict[str, list[dict[str, Any]]]:
    """The rules for the widgets of each node; `Rule` in words that JSON has."""
    return {
        node: [_told(rule, widget, node) for rule in RULES for widget in widgets if widget.setting == rule.setting]
        for node, widgets in NODES.items()
    }


def _told(rule: Rule, widget: Widget, node: str) -> dict[str, Any]:
    # The dataset node does not read a folder of masks that it has no use for, and so refuses none.
    refused = rule.idle is not None and widget is not load_dataset.MASK_FOLDER
    return {
        "id": rule.id,
        "widget": widget.id,
        "when": [_condition(setting, condition, node) for setting, condition in rule.when.items()],
        "why": named_as_widgets(rule.why, [one for widgets in NODES.values() for one in widgets]),
        "idle": [widget.shown(value) for value in rule.idle] if refused else None,
    }


def _condition(setting: str, condition: Among | Other, node: str) -> dict[str, Any]:
    """`{"widget", "among" or "other"}`, with the `node` where it is another's; `{"input"}` that must not be wired."""
    if setting == MORE:
        return {"input": "more"}
    [(where, widget)] = [(n, one) for n, widgets in NODES.items() for one in widgets if one.setting == setting]
    values = [widget.shown(value) for value in condition.values]
    told = {"widget": widget.id, "among" if isinstance(condition, Among) else "other": values}
    return told if where == node else {**told, "node": where}
