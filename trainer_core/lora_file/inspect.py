"""What is in a file of a LoRA, a new word or a decorator: ranks, modules, dialect, family, hashes, who loads it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .decorator import KEY, is_decorator
from .dialects import FILE_LIMIT
from .foreign import guess_component, guess_dialects, guess_family, other_methods, shapes_of, split_key
from .hashes import sha256_of_data, sha256_of_file
from .kinds import KINDS, kind_of
from .known_targets import standard_target
from .lora import ReaderReport, Shapes, Target
from .metadata import family_told, parsed, top_tags
from .readers import reader_reports
from .safe_io import Header, read_header, read_tensors
from .words import KEYS, LIMIT, word_in

WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
"""Of a new word's vectors, where there is one text encoder."""


@dataclass
class Inspection:
    """What `inspect_file` found. Counters are by value: {rank: number of modules}."""

    path: str
    size: int
    """Bytes."""
    tensors: int
    kind: str
    """"LoRA" or a relative ("LoHa"), "new word", "decorator", the names of methods that are not read here, or "no
    LoRA"."""
    dialects: list[str]
    family: str | None
    """A guess from names and shapes, in words."""
    components: dict[str, int]
    """Component -> number of modules."""
    ranks: dict[int, int]
    sizes: dict[str, int]
    """How large the parts are that have no rank: LoKr's whole factors ("w1 4×8"), OFT's blocks ("blocks of 16")."""
    alphas: dict[float, int]
    """Empty where the file holds none, which readers take as alpha = rank."""
    dtypes: dict[str, int]
    broken: list[str]
    """Keys whose tensors hold NaN or infinite numbers."""
    hashes: dict[str, str]
    metadata: dict[str, str]
    readers: list[ReaderReport] = field(default_factory=list)
    word: str = ""
    """The new word (textual inversion) that the file is of."""
    vectors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Its vectors: shapes by text encoder, [n, width]."""
    tokens: tuple[int, int] | None = None
    """Of a decorator: its vectors and their width."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; metadata entries that are JSON are unpacked."""
        values = {**vars(self), "ranks": _text_keys(self.ranks), "alphas": _text_keys(self.alphas)}
        values["metadata"] = {key: _unpacked(value) for key, value in self.metadata.items()}
        values["readers"] = [vars(report) for report in self.readers]
        return values

    def lines(self) -> list[str]:
        """For a person, one fact a line."""
        lines = [
            f"{self.path}: {self.kind}, {self.size:,} bytes, {self.tensors} tensors",
            f"family: {self.family or 'not recognised'}; keys: {', '.join(self.dialects) or 'not recognised'}",
            *(self._of_word() if self.word else self._of_decorator() if self.tokens else self._of_modules()),
        ]
        lines += [f"NaN or infinite: {len(self.broken)} tensors, first {self.broken[0]}"] if self.broken else []
        lines += [report.line() for report in self.readers]
        lines += [f"{name}: {value}" for name, value in self.hashes.items()]
        lines += [f"{words}: {self.metadata[key]}" for key, words in _TOLD.items() if self.metadata.get(key)]
        tags = top_tags(self.metadata, 10)
        lines += ["tags: " + ", ".join(f"{tag} ({count})" for tag, count in tags)] if tags else []
        return lines

    def _of_word(self) -> list[str]:
        """What prompts write for the word, and how much of them it takes."""
        widths = " and ".join(f"{shape[-1]} wide ({part})" for part, shape in self.vectors.items())
        count = next(iter(self.vectors.values()))[0]
        return [
            f"word: {self.word}; in ComfyUI's prompts embedding:{Path(self.path).stem}",
            f"vectors: {count}, {widths}; dtype: {_counted(self.dtypes)}",
        ]

    def _of_decorator(self) -> list[str]:
        count, width = self.tokens
        return [f"vectors: {count}, {width} wide; dtype: {_counted(self.dtypes)}"]

    def _of_modules(self) -> list[str]:
        modules = ", ".join(f"{count} in {name}" for name, count in self.components.items()) or "none"
        return [f"modules: {modules}", f"{self._measures()}; dtype: {_counted(self.dtypes)}"]

    def _measures(self) -> str:
        """Ranks, alphas and sizes, as far as the kind has them."""
        alphas = _counted(self.alphas) or "not stored (taken as the rank)"
        told = [f"rank: {_counted(self.ranks)}; alpha: {alphas}"] if self.ranks or not self.sizes else []
        return "; ".join(told + ([f"sizes: {_counted(self.sizes)}"] if self.sizes else []))


_TOLD = {
    "modelspec.title": "title",
    "modelspec.architecture": "architecture",
    "ss_base_model_version": "base model version",
    "ss_sd_model_name": "base model",
    "modelspec.trigger_phrase": "trigger",
    "scion.words": "new words",
    "scion.decorator": "decorator",
    "modelspec.resolution": "resolution",
    "ss_learning_rate": "learning rate",
    "ss_optimizer": "optimiser",
    "ss_steps": "steps",
    "ss_num_train_images": "training pictures",
    "ss_seed": "seed",
    "modelspec.date": "date",
    "scion.version": "written by Scion",
}


def inspect_file(path: str | Path, target: Target | None = None) -> Inspection:
    """Look into a file of a LoRA, a new word or a decorator.

    Args:
        path: any safetensors file.
        target: the model to try it on; by default the family's standard one, where the family is recognised.

    Raises:
        BadInput: no readable safetensors file.
    """
    header = read_header(path)
    shapes = shapes_of(header.tensors)
    halves = {key: split for key in header.tensors if (split := split_key(key))}
    modules = dict.fromkeys(name for name, part in halves.values() if part != "alpha")
    others = other_methods(header.tensors)
    family, told = guess_family(shapes), family_told(header.metadata)
    if family is None or (family, told) == ("Stable Diffusion XL", "Kolors"):
        family = told
    found = Inspection(
        path=str(path),
        size=header.file_size,
        tensors=len(shapes),
        kind=", ".join([*_kinds(halves), *others]) or "no LoRA (a whole model, or something else)",
        dialects=guess_dialects(halves) if modules else [],
        family=family,
        components=dict(Counter(guess_component(name) for name in modules)),
        ranks=_ranks(halves, shapes),
        sizes=_sizes(halves, shapes),
        alphas={},
        dtypes=_dtypes(header),
        broken=[],
        hashes=_hashes(path),
        metadata=header.metadata,
    )
    small = not modules and not others and header.file_size <= LIMIT
    if small and is_decorator(shapes):
        _look_at_decorator(found, path)
    elif small and len(shapes) < len(KEYS):
        _look_for_word(found, path)
    if modules:
        tensors, _ = read_tensors(path, FILE_LIMIT)
        alphas = [tensors[key] for key, (_, part) in halves.items() if part == "alpha"]
        found.alphas = dict(Counter(float(alpha.item()) for alpha in alphas if alpha.numel() == 1))
        found.broken = [key for key in halves if not torch.isfinite(tensors[key].float()).all()]
        target = target or standard_target(family or "")
        if target is not None and not others:
            found.readers = reader_reports(tensors, target)
    return found


def _look_at_decorator(found: Inspection, path: str | Path) -> None:
    (rows,) = read_tensors(path, LIMIT)[0].values()
    found.kind, found.tokens = "decorator", tuple(rows.shape)
    found.broken = [] if torch.isfinite(rows.float()).all() else [KEY]
    found.dialects = ["ai-toolkit's decorator"]
    if found.family is None:
        found.family = {768: "Stable Diffusion 1.x", 2048: "Stable Diffusion XL"}.get(rows.shape[1])


def _look_for_word(found: Inspection, path: str | Path) -> None:
    """Says of a small file without modules that it is a new word's, if it is."""
    tensors, metadata = read_tensors(path, LIMIT)
    word = word_in(tensors, metadata, Path(path).stem)
    if word is None:
        return
    found.kind, found.word = "new word (textual inversion)", word.name
    found.vectors = {part: tuple(rows.shape) for part, rows in word.vectors.items()}
    found.broken = [key for key, rows in tensors.items() if not torch.isfinite(rows.float()).all()]
    found.dialects = ["ComfyUI's embeddings"]
    if found.family is None:
        width = next(iter(found.vectors.values()))[-1]
        found.family = "Stable Diffusion XL" if "te2" in found.vectors else WIDTHS.get(width)


def _kinds(halves: dict[str, tuple[str, str]]) -> list[str]:
    """Titles of the kinds of the file's modules."""
    modules: dict[str, set[str]] = {}
    for module, part in halves.values():
        modules.setdefault(module, set()).add(part)
    found = {kind_of(parts) for parts in modules.values() if parts != {"alpha"}}
    return [weights.title for kind, weights in KINDS.items() if kind in found]


RANKED = ("down", "hada_w1_b", "lokr_w2_b")
"""Parts whose first axis is a module's rank; LoKr's w1_b where there is no w2_b."""


def _ranks(halves: dict[str, tuple[str, str]], shapes: Shapes) -> dict[int, int]:
    pairs = {module for module, part in halves.values() if part == "lokr_w2_b"}
    ranked = [
        shapes[key][0]
        for key, (module, part) in halves.items()
        if shapes[key] and (part in RANKED or (part == "lokr_w1_b" and module not in pairs))
    ]
    return dict(Counter(ranked))


def _sizes(halves: dict[str, tuple[str, str]], shapes: Shapes) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for key, (_, part) in halves.items():
        if part in ("lokr_w1", "lokr_w2"):
            sizes[f"{part.removeprefix('lokr_')} {'×'.join(map(str, shapes[key]))}"] += 1
        elif part == "oft_blocks" and len(shapes[key]) > 1:
            sizes[f"blocks of {shapes[key][1]}"] += 1
    return dict(sizes)


def _dtypes(header: Header) -> dict[str, int]:
    """dtype -> number of tensors, scalars (alphas) aside."""
    return dict(Counter(str(entry.dtype).removeprefix("torch.") for entry in header.tensors.values() if entry.shape))


def _hashes(path: str | Path) -> dict[str, str]:
    whole, data = sha256_of_file(path), sha256_of_data(path)
    return {"SHA-256": whole, "AutoV2": whole[:10], "sshs_model_hash": data}


def _counted(values: dict[Any, int]) -> str:
    """ "16 (128×)", the most frequent first; the count is left out where there is one value."""
    if len(values) == 1:
        return _number(next(iter(values)))
    return ", ".join(f"{_number(value)} ({count}×)" for value, count in Counter(values).most_common(8))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text_keys(values: dict[Any, int]) -> dict[str, int]:
    return {_number(value): count for value, count in values.items()}


def _unpacked(text: str) -> Any:
    value = parsed(text) if text[:1] in "{[" else None
    return text if value is None else value
