"""The recipe: everything a user asks for; each part's settings lie beside the code that obeys them.

Nothing heavy is imported, here or there: ComfyUI builds its widgets from the settings while it starts.
"""

import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import options, presets
from .adapters.decorator_config import DecoratorConfig
from .adapters.lora_config import PAIRS, LoRAConfig
from .adapters.words_config import WordsConfig, stem
from .data.config import DatasetConfig
from .engine.objective_config import ObjectiveConfig
from .engine.optimizer_config import OptimizerConfig
from .engine.output_config import RESERVED, OutputConfig
from .engine.preview_config import PreviewConfig
from .engine.run_config import RunConfig
from .errors import BadInput
from .files import write_json, write_text
from .options import option

VERSION = 1
OF_A_LORA = ("exclude", "dropout", "rslora", "start_from", "kind", "text_encoder")
"""Settings of the adapter that mean nothing where there is none. Presets have its rank, alpha and targets: these are
left as they are."""
LONGEST = 4 * 2**20
"""Bytes; what is longer is no recipe."""


@dataclass(kw_only=True)
class Recipe:
    """What a run is made of. Equal recipes on equal data give equal LoRAs."""

    base: str = option(
        "scion-tiny",
        help="The base model: scion-tiny (built in), a diffusers folder, a checkpoint file, or a cached hub id",
        decides=False,
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    adapter: LoRAConfig = field(default_factory=LoRAConfig)
    words: WordsConfig = field(default_factory=WordsConfig)
    decorator: DecoratorConfig = field(default_factory=DecoratorConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def validate(self, dataset_known: bool = True) -> list[str]:
        """Every problem with the settings at once; what only base or data can tell comes when they are read.

        Args:
            dataset_known: False where the dataset's settings come from elsewhere, later.
        """
        found = [*options.problems_of(self), *self._at_odds(dataset_known)]
        if not self.base.strip():
            found.append("base: is empty; name a model, such as scion-tiny")
        return found + self._kind_problems() + self._words_problems() + self._alone_problems()

    def _kind_problems(self) -> list[str]:
        """What other parts ask that the adapter's kind cannot do."""
        found, kind = [], self.adapter.kind
        if self.output.dialect == "diffusers" and kind != "lora":
            found.append(
                f"output.dialect: 'diffusers', but adapter.kind is {kind}, of which diffusers reads no files; set it "
                "to auto, kohya, kohya-ldm or comfyui"
            )
        if self.optimizer.lora_plus_ratio not in (0, 1) and kind not in PAIRS:
            found.append(
                f"optimizer.lora_plus_ratio: {self.optimizer.lora_plus_ratio:g}, but adapter.kind is {kind}, which has "
                "no B; set it to 0"
            )
        return found

    def _words_problems(self) -> list[str]:
        """What new words cannot be called beside other files."""
        found, words = [], self.words
        taken = (*RESERVED, self.output.name.lower()) if self.has_lora else RESERVED
        for name in words.names:
            if stem(name).lower() in taken:
                found.append(
                    f"words.names: the file of {name} would be {stem(name)}.safetensors, as another file of the run "
                    "is; choose another word, or another output.name"
                )
        return found

    def _alone_problems(self) -> list[str]:
        """What is asked of a LoRA where others learn without one, and of others what the optimiser does not do."""
        found = []
        for name, part in (("words", self.words), ("decorator", self.decorator)):
            if part.learning_rate is not None and self.optimizer.kind.finds_rate:
                found.append(
                    f"{name}.learning_rate: {part.learning_rate:g}, but {self.optimizer.chosen} finds one learning "
                    "rate for all; leave it empty"
                )
            if part.alone:
                found += [
                    f"{setting}: {said}, but {name}.alone is on, so there is no LoRA; set it to false, or leave this "
                    "as it was"
                    for setting, said in self._of_a_lora().items()
                ]
        return found

    def _of_a_lora(self) -> dict[str, str]:
        """Settings that were changed and of a LoRA alone, by dotted name, and how; not those that presets have, too."""
        names = {"adapter": OF_A_LORA, "optimizer": ("lora_plus_ratio", "part_rates"), "output": ("dialect",)}
        usual, found = Recipe(), {}
        for part, settings_of_it in names.items():
            for name in settings_of_it:
                value = getattr(getattr(self, part), name)
                if value not in (getattr(getattr(usual, part), name), 1 if name == "lora_plus_ratio" else None):
                    found[f"{part}.{name}"] = ", ".join(value) if isinstance(value, list) else str(value).lower()
        return found

    def _at_odds(self, dataset_known: bool) -> list[str]:
        """Settings of one part that do nothing without another part's."""
        run, found = self.run, []
        for name, asked in (("preview.weights", self.preview.weights), ("output.weights", self.output.weights)):
            if asked == "ema" and not run.ema_decay:
                found.append(f"{name}: 'ema', but no moving average is kept; set run.ema_decay, such as to 0.999")
        if dataset_known and not self.dataset.holdout:
            for name, asked in (("run.early_stop", run.early_stop), ("run.keep_best", run.keep_best)):
                if asked:
                    found.append(
                        f"{name}: {str(asked).lower()}, but no picture is held out to measure the validation loss on; "
                        "set dataset.holdout to 1 or more"
                    )
        if self.optimizer.text_encoder_learning_rate is not None and not self.adapter.trains_text:
            found.append(
                f"optimizer.text_encoder_learning_rate: {self.optimizer.text_encoder_learning_rate:g}, but no text "
                "encoder learns; set adapter.text_encoder to on, or leave it empty"
            )
        if run.text_encoder_precision != "auto" and self.encodes_live:
            found.append(
                f"run.text_encoder_precision: {run.text_encoder_precision}, but the text encoders learn, or new "
                "words in them, in run.precision; set it to auto"
            )
        if self.output.checkpoint == "best" and not run.keep_best:
            found.append("output.checkpoint: 'best', but the best checkpoint is not kept; set run.keep_best to true")
        return found

    @property
    def has_lora(self) -> bool:
        """Whether there is an adapter; else new words or a decorator learn without one."""
        return not (self.words.alone or self.decorator.alone)

    @property
    def encodes_live(self) -> bool:
        """Whether captions are encoded in each step, because something learns that they go through."""
        return self.words.learn or self.adapter.trains_text

    @property
    def weights_of_file(self) -> str:
        """Which weights the LoRA file has, and validation measures: "trained" or "ema"."""
        return self.run.weights(self.output.weights)

    @property
    def weights_of_previews(self) -> str:
        """Which weights previews are drawn with: "trained" or "ema"."""
        return self.run.weights(self.preview.weights)

    def decisive(self, precision: str) -> dict[str, Any]:
        """The settings that decide the weights, by dotted name: what a run's fingerprint is made of.

        The length of the run belongs to them only where the learning rate depends on it, so that a run can be extended.

        Args:
            precision: what the run computes in, where the recipe may have asked for "auto".

        Raises:
            BadInput: the LoRA to start from, or the assistant, cannot be read.
        """
        decisive = {}
        for name, part in options.parts_of(Recipe).items():
            for key, described in options.options_of(part).items():
                if described.decides:
                    decisive[f"{name}.{key}"] = getattr(getattr(self, name), key)
        decisive["dataset.folders"] = self.dataset.folders_decide()
        decisive["run.precision"] = precision
        if not self.optimizer.needs_total:
            del decisive["run.steps"], decisive["run.epochs"]
        if not self.adapter.assistant:
            del decisive["adapter.assistant_strength"]
        for name in ("start_from", "assistant"):
            if file := getattr(self.adapter, name):
                # Reads safetensors, which needs torch.
                from .lora_file.hashes import sha256_of_data

                # What is in the file decides, not what it is called.
                decisive[f"adapter.{name}"] = f"SHA-256 {sha256_of_data(file)[:16]}"
        return decisive

    def fingerprint(self, model: str, dataset: str, precision: str) -> str:
        """Equal for runs that train the same weights.

        Settings at their defaults do not count, so that a run of today is the same when there are more settings.

        Args:
            model, dataset: the base's identity and the scan's fingerprint.
            precision: as for `decisive`.
        """
        usual = {name: described.default for name, described in settings().items() if name != "run.precision"}
        chosen = {name: v for name, v in self.decisive(precision).items() if name not in usual or v != usual[name]}
        said = json.dumps([VERSION, model, dataset, chosen], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return {"version": VERSION, **options.as_dict(self)}


def from_dict(values: Any, dataset_known: bool = True) -> Recipe:
    """A recipe from plain values. The key `preset` names one of `presets`, which the other values count more than.

    Args:
        dataset_known: as for `Recipe.validate`.

    Raises:
        BadInput: with every problem at once: unknown settings (the nearest name is given), wrong types, ranges.
    """
    if not isinstance(values, dict):
        raise BadInput('recipe: expected settings, such as {"base": "scion-tiny"}')
    values = presets.filled(values)
    version = values.pop("version", VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise BadInput(f"version: {version!r} is no recipe version; expected {VERSION}")
    if version > VERSION:
        raise BadInput(f"version: {version} is newer than this Scion reads ({VERSION}); update Scion")
    recipe, problems = options.build(Recipe, values)
    problems += recipe.validate(dataset_known)
    if problems:
        raise BadInput(*problems)
    return recipe


def read(path: str | Path, preset: str | None = None) -> Recipe:
    """A recipe from a JSON or TOML file.

    Args:
        preset: taken instead of the file's own.

    Raises:
        BadInput: it cannot be read, or its settings cannot be used; the file is named.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LONGEST:
            raise BadInput(f"{path}: is {path.stat().st_size:,} bytes long; a recipe has at most {LONGEST:,}")
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as a recipe ({error})") from None
    try:
        return from_dict({**values, "preset": preset} if preset and isinstance(values, dict) else values)
    except BadInput as error:
        raise BadInput(*(f"{path}: {problem}" for problem in error.problems)) from None


def write(recipe: Recipe, path: str | Path) -> None:
    """The recipe as a .json or .toml file, after the path's ending.

    Raises:
        BadInput: another ending.
    """
    ending = Path(path).suffix.lower()
    if ending == ".toml":
        write_text(path, to_toml(recipe))
    elif ending == ".json":
        write_json(path, recipe.as_dict())
    else:
        raise BadInput(f"{path}: a recipe is written as .json or .toml")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; settings without a value are left out, because TOML has no word for nothing."""

    def entry(name: str, value: Any) -> str:
        # JSON's strings, numbers, booleans and flat lists are TOML's too, but for one character that JSON leaves bare.
        return f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")

    values = recipe.as_dict()
    lines = [entry(name, value) for name, value in values.items() if not isinstance(value, dict)]
    for name, part in values.items():
        if isinstance(part, dict):
            tables = {key: value for key, value in part.items() if value and isinstance(value, list)}
            tables = {key: value for key, value in tables.items() if isinstance(value[0], dict)}
            flat = {key: value for key, value in part.items() if value is not None and key not in tables}
            lines += ["", f"[{name}]", *(entry(key, value) for key, value in flat.items())]
            for key, entries in tables.items():
                for values in entries:
                    lines += ["", f"[[{name}.{key}]]", *(entry(inner, value) for inner, value in values.items())]
    return "\n".join(lines) + "\n"


def with_setting(recipe: Recipe, name: str, text: str) -> Recipe:
    """The recipe with one setting changed, as `--set optimizer.learning_rate=2e-4` asks.

    Raises:
        BadInput: no such setting (the nearest is named), or a value of the wrong type.
    """
    described = settings()
    numbered = re.fullmatch(r"(\w+)\.(\w+)\[(\d+)\]\.(\w+)", name)
    if numbered and options.entry_of(getattr(described.get(f"{numbered[1]}.{numbered[2]}"), "type", None)):
        return _with_entry(recipe, name, text, *numbered.groups())
    value = _value_of(name, name, described, text)
    part, _, key = name.rpartition(".")
    if not part:
        return dataclasses.replace(recipe, **{key: value})
    return dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **{key: value})})


def _value_of(name: str, key: str, described: dict[str, options.Option], text: str) -> Any:
    """The value that text means for the setting `key`; `name` is what the user calls it."""
    if key not in described:
        near = difflib.get_close_matches(key, described, 1, 0.5)
        raise BadInput(f"{name}: unknown setting" + (f"; did you mean {near[0]!r}?" if near else ""))
    try:
        return options.from_text(text, described[key])
    except TypeError as error:
        raise BadInput(f"{name}: {error}") from None


def _with_entry(recipe: Recipe, name: str, text: str, part: str, key: str, number: str, inner: str) -> Recipe:
    """The recipe with a setting of one entry changed, such as `dataset.folders[0].repeats`.

    Raises:
        BadInput: as for `with_setting`, or no such entry.
    """
    entries = list(getattr(getattr(recipe, part), key))
    if int(number) >= len(entries):
        count = f"there are {len(entries)}, counted from 0" if entries else "there is none"
        count += f". The first folder is {part}.path, with its settings in {part}; {key} are those after it"
        raise BadInput(f"{name}: {part}.{key} has no entry {number}; {count}")
    value = _value_of(name, inner, options.options_of(type(entries[0])), text)
    entries[int(number)] = dataclasses.replace(entries[int(number)], **{inner: value})
    return dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **{key: entries})})


def settings() -> dict[str, options.Option]:
    """Every setting by its dotted name, in the order of declaration."""
    found = dict(options.options_of(Recipe))
    for name, part in options.parts_of(Recipe).items():
        found |= {f"{name}.{key}": described for key, described in options.options_of(part).items()}
    return found
