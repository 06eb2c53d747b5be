"""comfy_api.latest.io's inputs and outputs by hand: keywords as ComfyUI 0.33 has them, others are a TypeError.

Beyond the original, values that make no sense (a default that is no choice, or out of its range) are refused.
"""

from typing import Any

__all__ = [
    "Boolean",
    "Clip",
    "Conditioning",
    "Combo",
    "Custom",
    "Float",
    "Image",
    "Input",
    "Int",
    "Model",
    "MultiType",
    "Output",
    "String",
    "Vae",
]


def pruned(values):
    return {name: value for name, value in values.items() if value is not None}


class _OfType:
    Parent: Any = None

    @property
    def io_type(self):
        return self.Parent.io_type

    def get_io_type(self):
        return self.io_type

    def validate(self):
        pass


class Input(_OfType):
    def __init__(
        self,
        id: str,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        assert isinstance(id, str) and id, id
        self.id, self.display_name, self.optional, self.tooltip = id, display_name, optional, tooltip
        self.lazy, self.extra_dict, self.rawLink, self.advanced = lazy, extra_dict or {}, raw_link, advanced

    def as_dict(self):
        said = {name: getattr(self, name) for name in ("display_name", "optional", "tooltip", "lazy", "rawLink")}
        return pruned(said | {"advanced": self.advanced}) | pruned(self.extra_dict)

    def get_all(self):
        return [self]


class WidgetInput(Input):
    def __init__(self, id, default=None, socketless=None, widget_type=None, force_input=None, **common):
        super().__init__(id, **common)
        self.default, self.socketless = default, socketless
        self.widget_type, self.force_input = widget_type, force_input

    def as_dict(self):
        return super().as_dict() | pruned(
            {
                "default": self.default,
                "socketless": self.socketless,
                "widgetType": self.widget_type,
                "forceInput": self.force_input,
            }
        )


class Output(_OfType):
    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.display_name = id, display_name or id
        self.tooltip, self.is_output_list = tooltip, is_output_list


def Custom(io_type):
    return _made(io_type, Input)


def _made(io_type, base):
    """A type of the graph with an Input and an Output of its own."""
    kind = type(io_type, (), {"io_type": io_type})
    kind.Input = type("Input", (base,), {"Parent": kind})
    kind.Output = type("Output", (Output,), {"Parent": kind})
    return kind


class _BooleanInput(WidgetInput):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        label_on=None,
        label_off=None,
        socketless=None,
        force_input=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(
            id, default, socketless, None, force_input, **_common(display_name, optional, tooltip, lazy, locals())
        )
        assert default is None or isinstance(default, bool), f"{id}: {default!r}"
        self.label_on, self.label_off = label_on, label_off

    def as_dict(self):
        return super().as_dict() | pruned({"label_on": self.label_on, "label_off": self.label_off})


class _IntInput(WidgetInput):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        min=None,
        max=None,
        step=None,
        control_after_generate=None,
        display_mode=None,
        socketless=None,
        force_input=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(
            id, default, socketless, None, force_input, **_common(display_name, optional, tooltip, lazy, locals())
        )
        _check_number(id, default, min, max, int)
        self.min, self.max, self.step, self.display_mode = min, max, step, display_mode
        self.control_after_generate = control_after_generate

    def as_dict(self):
        return super().as_dict() | pruned(
            {
                "min": self.min,
                "max": self.max,
                "step": self.step,
                "control_after_generate": self.control_after_generate,
                "display": self.display_mode.value if self.display_mode else None,
            }
        )


class _FloatInput(WidgetInput):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        min=None,
        max=None,
        step=None,
        round=None,
        display_mode=None,
        gradient_stops=None,
        socketless=None,
        force_input=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(
            id, default, socketless, None, force_input, **_common(display_name, optional, tooltip, lazy, locals())
        )
        _check_number(id, default, min, max, (int, float))
        self.min, self.max, self.step, self.round = min, max, step, round
        self.display_mode, self.gradient_stops = display_mode, gradient_stops

    def as_dict(self):
        return super().as_dict() | pruned(
            {
                "min": self.min,
                "max": self.max,
                "step": self.step,
                "round": self.round,
                "display": self.display_mode,
                "gradient_stops": self.gradient_stops,
            }
        )


class _StringInput(WidgetInput):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        multiline=False,
        placeholder=None,
        default=None,
        dynamic_prompts=None,
        socketless=None,
        force_input=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(
            id, default, socketless, None, force_input, **_common(display_name, optional, tooltip, lazy, locals())
        )
        assert default is None or isinstance(default, str), f"{id}: {default!r}"
        self.multiline, self.placeholder, self.dynamic_prompts = multiline, placeholder, dynamic_prompts

    def as_dict(self):
        return super().as_dict() | pruned(
            {
                "multiline": self.multiline,
                "placeholder": self.placeholder,
                "dynamicPrompts": self.dynamic_prompts,
            }
        )


class _ComboInput(WidgetInput):
    def __init__(
        self,
        id,
        options=None,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        control_after_generate=None,
        upload=None,
        image_folder=None,
        remote=None,
        socketless=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        super().__init__(
            id, default, socketless, None, None, **_common(display_name, optional, tooltip, lazy, locals())
        )
        assert upload is image_folder is remote is None, f"{id}: uploads are not faked"
        assert isinstance(options, list) and len(set(options)) == len(options), f"{id}: {options!r}"
        assert default is None or default in options, f"{id}: {default!r} is none of {options}"
        self.options, self.control_after_generate = options, control_after_generate

    def as_dict(self):
        said = {
            "multiselect": False,
            "options": self.options,
            "control_after_generate": self.control_after_generate,
        }
        return super().as_dict() | pruned(said)


class _MultiInput(Input):
    def __init__(
        self,
        id,
        types,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        extra_dict=None,
        raw_link=None,
        advanced=None,
    ):
        assert isinstance(id, str), "a MultiType over a widget is not faked"
        super().__init__(id, **_common(display_name, optional, tooltip, lazy, locals()))
        self._io_types = types

    def get_io_type(self):
        return ",".join(dict.fromkeys(kind.io_type for kind in self._io_types))


def _common(display_name, optional, tooltip, lazy, given):
    return {
        "display_name": display_name,
        "optional": optional,
        "tooltip": tooltip,
        "lazy": lazy,
        **{name: given[name] for name in ("extra_dict", "raw_link", "advanced")},
    }


def _check_number(id, default, low, high, kind):
    for value in (default, low, high):
        assert value is None or (isinstance(value, kind) and not isinstance(value, bool)), f"{id}: {value!r}"
    if default is not None:
        assert (low is None or low <= default) and (high is None or default <= high), f"{id}: {low} {default} {high}"


Boolean, Int, Float = _made("BOOLEAN", _BooleanInput), _made("INT", _IntInput), _made("FLOAT", _FloatInput)
String, Combo = _made("STRING", _StringInput), _made("COMBO", _ComboInput)
MultiType = _made("COMFY_MULTITYPED_V3", _MultiInput)
Image, Model, Clip, Vae = Custom("IMAGE"), Custom("MODEL"), Custom("CLIP"), Custom("VAE")
Conditioning = Custom("CONDITIONING")
