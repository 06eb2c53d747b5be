"""The command line: words to calls, errors to messages and exit codes."""

import argparse
import os
import sys

from . import __version__
from .errors import BadInput, ScionError

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
"""Exit codes."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; the exit code is 0 done, 1 failed, 2 bad input, 130 stopped and kept."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe on Windows speaks cp1252: a Chinese file name must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    given = parser.parse_args(arguments)
    # Heavy libraries are imported by the commands that need them, so that `scion --help` answers at once.
    from . import commands, library_noise

    library_noise.silence()
    try:
        return getattr(commands, given.command)(given)
    except BadInput as error:
        for problem in error.problems:
            print(f"scion: {problem}", file=sys.stderr)
        _print_notes(error)
        return BAD_INPUT
    except ScionError as error:
        print(f"scion: {error}", file=sys.stderr)
        _print_notes(error)
        return FAILED
    except KeyboardInterrupt as error:
        print("scion: interrupted", file=sys.stderr)
        _print_notes(error)
        return STOPPED
    except BrokenPipeError:
        # Who read our output (head, less) has left; Python would complain once more when it flushes at the end.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return FAILED
    except Exception as error:
        # A bug: its traceback is what helps. Notes say what was kept.
        import traceback

        traceback.print_exception(error)
        return FAILED


def _print_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        print(note, file=sys.stderr)


class _TrainHelp(argparse.Action):
    """`scion train --help`: the parser's help, then every setting of a recipe."""

    def __init__(self, option_strings, dest, **_):
        super().__init__(option_strings, dest, nargs=0, help="show this help, with every setting, and exit")

    def __call__(self, parser, *_):
        from .settings_page import for_terminal

        parser.print_help()
        print("\n" + for_terminal())
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scion", description="Train LoRA adapters for diffusion models.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"scion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train a first LoRA with the built-in base, in about a minute")
    demo.add_argument("--out", default="scion-demo", metavar="DIR", help="where to put it (default: %(default)s)")

    _train(commands)
    _sample(commands)

    inspect = commands.add_parser(
        "inspect", help="what a file of a LoRA, a new word or a decorator holds, and who loads it"
    )
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="for programs")

    dataset = commands.add_parser(
        "dataset", help="what dataset folders hold: counts per bucket, captions, every problem"
    )
    dataset.add_argument("folder", nargs="+", metavar="DIR", help="one or several folders, or one recipe")
    dataset.add_argument("--base", help="for its resolution and bucket step (default: the recipe's, or scion-tiny)")
    _set(dataset)

    cache = commands.add_parser("cache", help="the disk cache of encoded pictures: its size, and pruning it")
    cache.add_argument(
        "--path", default="", metavar="DIR", help="its folder (default: .cache/scion/encoded in your home)"
    )
    cache.add_argument("--prune", action="store_true", help="delete the entries unused for longest")
    cache.add_argument(
        "--limit-gb", type=float, default=0.0, metavar="GB", help="with --prune: keep this much (default: 0)"
    )
    return parser


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.FIELD=VALUE",
        dest="settings",
        help="change a setting, such as adapter.rank=8; may be given many times",
    )


def _download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--download", action="store_true", help="fetch the base from Hugging Face if it is a hub id that is not here"
    )


def _train(commands) -> None:
    train = commands.add_parser(
        "train",
        help="train a LoRA from a recipe, or from --base and --dataset; go on with a run",
        add_help=False,
        allow_abbrev=False,
        epilog="A finished run returns at once, an unfinished one goes on. Ctrl-C saves and stops.",
    )
    train.add_argument("-h", "--help", action=_TrainHelp)
    train.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="a .json or .toml file; a run folder's recipe.json goes on"
    )
    train.add_argument("--base", help="scion-tiny, a diffusers folder, a checkpoint file, or a cached hub id")
    _download(train)
    train.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="DIR",
        help="folder of pictures with captions, instead of the recipe's; several are dataset.path and dataset.folders",
    )
    train.add_argument(
        "--regularisation",
        action="append",
        default=[],
        metavar="DIR",
        help="folder of pictures of the class that is to be kept (prior preservation); may be given many times",
    )
    train.add_argument(
        "--preset",
        metavar="SUBJECT/PACE",
        help="begin with the settings of person, style or object / fast, balanced or careful (docs/presets.md); the "
        "recipe's own and --set count more",
    )
    train.add_argument("--out", metavar="DIR", help="the run's folder (default: the recipe's own, or scion-runs/NAME)")
    train.add_argument("--save-recipe", metavar="FILE", help="only write the settings, to a .json or .toml file")
    train.add_argument("--quiet", action="store_true", help="no progress bars")
    _set(train)


_SAMPLING = {"seed": int, "steps": int, "guidance": float, "sampler": str, "width": int, "height": int}
"""What `scion sample` shares with a recipe's previews: names and defaults are theirs."""


def _sample(commands) -> None:
    sample = commands.add_parser("sample", help="draw pictures with a base and a LoRA", allow_abbrev=False)
    sample.add_argument("--base", default="scion-tiny", help="as in train (default: %(default)s)")
    _download(sample)
    sample.add_argument("--lora", metavar="FILE", help="a LoRA file in any dialect")
    sample.add_argument(
        "--words",
        action="append",
        default=[],
        metavar="FILE",
        help="a new word (textual inversion) for prompts; may be given many times. Those that lie beside the LoRA of "
        "their run are taken by themselves",
    )
    sample.add_argument(
        "--decorator",
        metavar="FILE",
        help="a decorator, which follows every prompt; that which lies beside the LoRA of its run is taken by itself",
    )
    sample.add_argument(
        "--decorator-strength", type=float, default=1.0, help="of the decorator; 0 = without (default: %(default)s)"
    )
    sample.add_argument("--strength", type=float, default=1.0, help="of the LoRA (default: %(default)s)")
    sample.add_argument("--prompt", action="append", required=True, help="may be given many times")
    sample.add_argument("--out", default="samples", help="a .png for one picture, else a folder (default: %(default)s)")
    sample.add_argument("--negative", help="what not to draw")
    for name, kind in _SAMPLING.items():
        sample.add_argument(f"--{name}", type=kind, help=f"as preview.{name} in `scion train --help`")
    sample.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    sample.add_argument("--precision", default="auto", help="auto, fp32, bf16, fp16 (default: %(default)s)")
