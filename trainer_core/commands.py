"""The commands of `scion`, one function each: from parsed words to the engine and back to a person."""

import json
import os
import re
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from .cli import DONE, STOPPED
from .errors import BadInput


def train(given: Namespace) -> int:
    from .engine.run import train as run
    from .recipe import write
    from .terminal import Terminal

    recipe, folder = _recipe_and_folder(given)
    if given.save_recipe:
        write(recipe, given.save_recipe)
        print(f"{given.save_recipe}: written; train it with: scion train {given.save_recipe}")
        return DONE
    _fetch(given, recipe.base)
    result = run(recipe, folder, [Terminal(True if given.quiet else None)], stop_on_interrupt())
    return STOPPED if result.status == "stopped" else DONE


def _recipe_and_folder(given: Namespace):
    """The recipe with everything that the command line adds, and the run's folder."""
    import dataclasses

    from . import recipe as recipes
    from .engine.output import file_name
    from .engine.run_folder import is_run_folder

    recipe = recipes.read(given.recipe, given.preset) if given.recipe else recipes.from_dict({"preset": given.preset})
    if given.base:
        recipe = dataclasses.replace(recipe, base=given.base)
    recipe = dataclasses.replace(recipe, dataset=_with_folders(recipe.dataset, given.dataset, given.regularisation))
    recipe = with_settings(recipe, given.settings)
    if not recipe.dataset.path and not recipe.dataset.folders:
        raise BadInput("dataset.path: is empty; name the folder of pictures with --dataset DIR or in the recipe")
    if given.out:
        return recipe, Path(given.out)
    if given.recipe and is_run_folder(Path(given.recipe).parent):
        return recipe, Path(given.recipe).parent
    return recipe, Path("scion-runs") / file_name(recipe)


def _with_folders(config, paths: list[str], regularisation: list[str]):
    """The dataset's settings with its folders: those named take the place of the recipe's."""
    import dataclasses

    from .data.config import FolderConfig

    if paths:
        folders = [FolderConfig(path=path) for path in paths[1:]]
        config = dataclasses.replace(config, path=paths[0], folders=folders)
    prior = [FolderConfig(path=path, regularisation=True) for path in regularisation]
    return dataclasses.replace(config, folders=[*config.folders, *prior])


def _fetch(given: Namespace, base: str) -> None:
    """Brings a hub's model into the local cache, where `--download` allows it."""
    if given.download:
        from .families.sources import resolve

        resolve(base, download=True)


def with_settings(recipe, settings: list[str]):
    """The recipe after every `--set part.field=value`.

    Raises:
        BadInput: with every wrong one at once.
    """
    from .recipe import with_setting

    problems = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            problems.append(f"--set {setting}: expected PART.FIELD=VALUE, such as adapter.rank=8")
            continue
        try:
            recipe = with_setting(recipe, name.strip(), value)
        except BadInput as error:
            problems += error.problems
    problems += recipe.validate() if not problems else []
    if problems:
        raise BadInput(*problems)
    return recipe


def stop_on_interrupt() -> Callable[[], bool]:
    """The first Ctrl-C asks the run to stop after its step; the second interrupts it where it is."""
    asked = []

    def handle(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        # Not print: the signal may have come in the middle of one, which Python does not allow to be entered twice.
        os.write(2, b"\nStopping after this step and keeping what is done; Ctrl-C again stops at once.\n")

    signal.signal(signal.SIGINT, handle)
    return lambda: bool(asked)


def sample(given: Namespace) -> int:
    from . import options
    from .engine import sampling
    from .engine.charts import save_png, to_image
    from .engine.preview_config import PreviewConfig
    from .sampler import load_with_prompts

    shared = {name: getattr(given, name, None) for name in options.options_of(PreviewConfig)}
    config = PreviewConfig(**{name: value for name, value in shared.items() if value is not None})
    problems = [problem.replace("preview.", "--", 1) for problem in options.problems_of(config, "preview")]
    if problems:
        raise BadInput(*problems)
    paths = _picture_paths(given, config.seed)
    _fetch(given, given.base)
    words = _words(given)
    try:
        told = given.prompt, config.negative
        how = given.strength, given.device, given.precision, words, _decorator(given), given.decorator_strength
        model, entries = load_with_prompts(given.base, given.lora, *told, *how)
        size = config.width or model.resolution, config.height or model.resolution
        pictures = sampling.draw(model, given.prompt, config, *size, entries=entries)
    except BadInput as error:
        # Here the settings are words of the command line.
        raise BadInput(*(re.sub(r"^(preview|run)\.", "--", problem) for problem in error.problems)) from None
    for number, (path, prompt) in enumerate(zip(paths, given.prompt, strict=True)):
        save_png(path, to_image(pictures[number]))
        print(f"{path}  seed {config.seed + number}  {prompt}")
    return DONE


def _words(given: Namespace) -> list:
    """The new words of the LoRA's run, which lie beside it, and those that were named."""
    from .lora_file.words import read_word
    from .sampler import words_beside

    beside, missing = words_beside(given.lora) if given.lora else ([], [])
    named = [read_word(path) for path in given.words]
    for name in missing:
        if name not in [word.name for word in named] and any(name.lower() in text.lower() for text in given.prompt):
            said = f"Warning: {given.lora} was trained with the new word {name}, whose file is not beside it"
            print(f"{said}; name it with --words FILE")
    return beside + named


def _decorator(given: Namespace):
    """The decorator that was named, else that of the LoRA's run, which lies beside it; None for none."""
    from .lora_file.decorator import read_decorator
    from .sampler import decorator_beside

    if given.decorator or not given.lora:
        return read_decorator(given.decorator) if given.decorator else None
    found, missing = decorator_beside(given.lora)
    if missing and given.decorator_strength:
        said = f"Warning: {given.lora} was trained with the decorator {missing}, which is not beside it"
        print(f"{said}; name it with --decorator FILE")
    return found


def _picture_paths(given: Namespace, seed: int) -> list[Path]:
    out = Path(given.out)
    if out.suffix.lower() == ".png":
        if len(given.prompt) == 1:
            return [out]
        return [out.with_stem(f"{out.stem}-{number + 1}") for number in range(len(given.prompt))]
    if out.suffix:
        raise BadInput(f"--out: {out} does not end in .png; pictures are written as PNG, into a .png file or a folder")
    words = [re.sub(r"[^\w]+", "-", prompt).strip("-")[:60] or "picture" for prompt in given.prompt]
    return [out / f"{word}-{seed + number}.png" for number, word in enumerate(words)]


def inspect(given: Namespace) -> int:
    from .lora_file.inspect import inspect_file

    found = inspect_file(given.file)
    print(json.dumps(found.as_json(), indent=2, ensure_ascii=False) if given.json else "\n".join(found.lines()))
    return DONE


def dataset(given: Namespace) -> int:
    from .data.dataset import Dataset
    from .data.folders import scan_dataset
    from .data.report import report_lines
    from .families.registry import load
    from .recipe import Recipe, read

    paths, recipe = given.folder, Recipe()
    if len(paths) == 1 and Path(paths[0]).suffix.lower() in (".json", ".toml"):
        paths, recipe = [], read(paths[0])
    recipe = with_settings(recipe, given.settings)
    config, named = _with_folders(recipe.dataset, paths, []), ", ".join(given.folder)
    scan = scan_dataset(config)
    if not scan.items:
        raise BadInput(*(scan.problems or [f"{named}: there is no picture in it"]))
    base = load(given.base or (recipe.base if not paths else "scion-tiny"))
    split = Dataset(scan.items, config, recipe.run.seed, base.side_step, base.resolution)
    print("\n".join(report_lines(scan, split)))
    if scan.problems:
        count = len(scan.problems)
        raise BadInput(f"{named}: {count} problem{'s' if count > 1 else ''} to mend, listed above")
    return DONE


def cache(given: Namespace) -> int:
    from .data import disk_cache as encoded
    from .data import scan_index

    folder = Path(given.path) if given.path else encoded.default_folder()
    if given.prune:
        freed = encoded.prune(folder, int(given.limit_gb * 1e9))
        if not given.limit_gb:
            scan_index.forget(folder)
        print(f"freed {freed.bytes / 1e9:.3f} GB in {freed.files} entries")
    held = encoded.usage(folder)
    print(f"{folder}: {held.bytes / 1e9:.3f} GB in {held.files} entries")
    return DONE


def demo(given: Namespace) -> int:
    from .demo import run_demo

    return STOPPED if run_demo(Path(given.out), stop_on_interrupt()) == "stopped" else DONE
