"""What a file of adapter weights is, judged by its keys and shapes alone: parts, method, dialect, model family."""

import re
from collections.abc import Iterable, Mapping

from .lora import Shapes

PARTS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
    ".dora_scale": "dora_scale",
    **{f".{name}": name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{f".{name}": name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b")},
    **{f".{name}": name for name in ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    ".oft_blocks": "oft_blocks",
}
"""How keys end, in all dialects, and what part of their module they are; LyCORIS' names stand in every dialect."""

METHODS = {
    "DoRA as peft stores it": (".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
    "OFT as peft stores it": (".oft_R.weight", ".oft_R.default.weight"),
    "OFT that scales, too": (".oft_diag", ".rescale"),
    "GLoRA": (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"),
    "IA3": (".on_input",),
    "Tucker-decomposed LoRA": (".lora_mid.weight",),
    "full weight differences": (".diff", ".diff_b", ".w_norm", ".b_norm", ".set_weight"),
    "LoRA with bias": (".lora_B.bias", ".lora_up.bias"),
}
"""How keys end that belong to methods that are not read here."""


def split_key(key: str) -> tuple[str, str] | None:
    """A key's module and part ("down", "up", "alpha", "hada_w1_a", …); None if it is of no kind that is read here."""
    for ending, part in PARTS.items():
        if key.endswith(ending):
            return key[: -len(ending)], part
    return None


def other_methods(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys that belong to methods that are not read here, by the method's name."""
    found: dict[str, list[str]] = {}
    for key in keys:
        for method, endings in METHODS.items():
            if key.endswith(endings):
                found.setdefault(method, []).append(key)
    return found


_DIALECT_PATTERNS = {
    "kohya-ldm": r"lora_unet_(input_blocks|middle_block|output_blocks|time_embed_\d|label_emb|out_\d|double_blocks|"
    r"single_blocks|joint_blocks|blocks_\d)",
    "kohya": r"(lora_unet|lora_te\d?|lora_transformer|lycoris)_",
    "comfyui": r"(diffusion_model|text_encoders)\.",
    "peft": r"base_model\.model\.",
    "diffusers-old": r"(unet\.|text_encoder\.)?.*(\.processor\.|_lora\.(down|up)\.weight|\.lora\.(down|up)\.weight)",
    "diffusers": r"(unet|transformer|text_encoder(_\d)?)\.",
}


def guess_dialects(keys: Iterable[str]) -> list[str]:
    """The dialects that keys are written in, the most frequent first; empty where none is known."""
    counts: dict[str, int] = {}
    for key in keys:
        name = next((name for name, pattern in _DIALECT_PATTERNS.items() if re.match(pattern, key)), None)
        if name:
            counts[name] = counts.get(name, 0) + 1
    # Text encoder keys are the same in both of kohya's dialects.
    if "kohya-ldm" in counts and not any(key.startswith(("lora_unet_down", "lora_unet_mid_b")) for key in keys):
        counts.pop("kohya", None)
    return sorted(counts, key=lambda name: -counts[name])


_COMPONENTS = {
    "text_encoder_2": r"(lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.)",
    "text_encoder_3": r"(lora_te3_|text_encoder_3\.|text_encoders\.t5)",
    "text_encoder": r"(lora_te1?_|text_encoder\.|text_encoders\.)",
    "transformer": r"(transformer\.|lora_transformer_|.*(double_blocks|single_blocks|joint_blocks)|"
    r"(lora_unet_|diffusion_model\.|base_model\.model\.)blocks[._]\d)",
}


def guess_component(key: str) -> str:
    """The part of the model that a key is for; "unet" where nothing says otherwise."""
    return next((name for name, pattern in _COMPONENTS.items() if re.match(pattern, key)), "unet")


def guess_family(shapes: Shapes) -> str | None:
    """The model family in words, from a file's keys and shapes; None if they do not tell.

    UNets are told apart by the width of the text that their cross-attention takes.
    """
    text = "\n".join(shapes)
    if re.search(r"single_transformer_blocks|double_blocks|single_blocks", text) or _is_as_wide_as_flux(shapes):
        return "Flux"
    if re.search(r"joint_blocks|(transformer\.|lora_transformer_)transformer_blocks", text):
        return _stable_diffusion_3(text, shapes)
    if re.search(_HUNYUAN, text) or (re.search(_HUNYUAN_IN_DIFFUSERS, text) and _holds(_HUNYUAN_WIDTH, shapes)):
        return "HunyuanDiT"
    widths = {128: "scion-tiny", 768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
    for key, shape in shapes.items():
        split = split_key(key)
        if split and split[1] in _INPUTS and re.search(r"attn2[._](processor[._])?to[._][kv]$", split[0]):
            return widths.get(_inputs(split, shapes, shape)) if len(shape) > 1 else None
    return "Stable Diffusion XL" if "lora_te2_" in text or "text_encoder_2." in text else None


_HUNYUAN = r"Wqkv|attn2[._]kv_proj|blocks[._]\d+[._](default_modulation|skip_linear)"
"""What only HunyuanDiT's original names have."""
_HUNYUAN_IN_DIFFUSERS = r"(?<!_)blocks\.\d+\.(attn\d\.to_|ff\.net|norm1\.linear)"
"""Of diffusers' names; other models have some of them too, but not its width."""
_HUNYUAN_WIDTH = 1408


def _holds(width: int, shapes: Shapes) -> bool:
    return any(width in shape for shape in shapes.values())


def _is_as_wide_as_flux(shapes: Shapes) -> bool:
    """Its blocks of two streams are called as Stable Diffusion 3's in diffusers."""
    return _holds(_FLUX, {key: shape for key, shape in shapes.items() if re.search(_IN_BLOCKS, key)})


_IN_BLOCKS = r"transformer_blocks[._]\d+[._](attn|ff)[._]"
_FLUX = 3072
"""The width of its transformer."""


def _stable_diffusion_3(text: str, shapes: Shapes) -> str:
    """Which of them, as far as the file tells: 3.5 Large is wider, and 3.5 Medium alone has a second attention."""
    if _holds(_SD35_LARGE, shapes):
        return "Stable Diffusion 3.5 Large"
    return "Stable Diffusion 3.5 Medium" if re.search(r"[._]attn2[._]", text) else "Stable Diffusion 3"


_SD35_LARGE = 2432
"""The width of its transformer."""

_INPUTS = ("down", "hada_w1_b", "lokr_w1", "lokr_w1_b")
"""Parts whose second axis is the weight's inputs, or (LoKr's) a factor of them."""


def _inputs(split: tuple[str, str], shapes: Shapes, shape: tuple[int, ...]) -> int:
    """How many inputs a linear module has, one of whose parts is `split`, of this shape."""
    other = [shapes[key] for ending in (".lokr_w2", ".lokr_w2_b") if (key := split[0] + ending) in shapes]
    return shape[1] * (other[0][1] if other and len(other[0]) > 1 else 1)


def shapes_of(tensors: Mapping) -> dict[str, tuple[int, ...]]:
    """Shapes by key, from tensors or from a header's entries."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}
