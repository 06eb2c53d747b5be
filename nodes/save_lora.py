"""SaveLoRA: a LoRA and a decorator into the host's loras folder, and new words beside the embeddings."""

import logging
from pathlib import Path

from ..trainer_core import recipe
from ..trainer_core.adapters.decorator_config import ENDING
from ..trainer_core.errors import BadInput
from .edges import digest_of, has_lora
from .host import paths
from .host.api import DECORATOR, LORA_MODEL, ExecutionBlocker, io

log = logging.getLogger("scion")

AS_IT_IS = "as it is"
NUMBER, OVERWRITE, ERROR = "add a number", "overwrite", "error"


class SaveLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        dialects = recipe.settings()["output.dialect"].choices
        return io.Schema(
            node_id="ScionSaveLoRA",
            display_name="Save LoRA (Scion)",
            category="Scion",
            description="Writes a LoRA into ComfyUI's loras folder, where every LoRA loader lists it at once; new "
            "words that were trained with it go into the embeddings folder, for prompts that say embedding:NAME, a "
            "decorator beside the LoRA.",
            search_aliases=["scion", "export lora", "write lora"],
            is_output_node=True,
            inputs=[
                LORA_MODEL.Input("lora", tooltip="From Train LoRA, or from ComfyUI's own training node"),
                DECORATOR.Input(
                    "decorator",
                    optional=True,
                    tooltip="From Train LoRA; saved beside the LoRA, for Apply Decorator Tokens",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="The file's name, with / for a subfolder of loras; empty = the name that the LoRA has",
                ),
                io.Combo.Input(
                    "existing",
                    options=[NUMBER, OVERWRITE, ERROR],
                    default=NUMBER,
                    optional=True,
                    tooltip="If another LoRA has this name already. The same LoRA is never written twice",
                ),
                io.Combo.Input(
                    "dialect",
                    options=[AS_IT_IS, *(name for name in dialects if name != "auto")],
                    default=AS_IT_IS,
                    optional=True,
                    tooltip="How keys are named. As it is, the file loads in ComfyUI; diffusers = for diffusers alone",
                    advanced=True,
                ),
            ],
            outputs=[io.String.Output(display_name="lora_name", tooltip="As the LoRA loaders list it")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, name=None):
        try:
            paths.lora_file((name or "").strip() or "lora")
        except BadInput as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, lora, decorator=None, name="", existing=NUMBER, dialect=AS_IT_IS):
        from .host.running import announce_lora

        words = [_saved_word(word, existing) for word in getattr(lora, "words", ())]
        told = f"New words: {', '.join(words)}" if words else ""
        listed, said = _saved(lora, name, existing, dialect) if has_lora(lora) else ("", "")
        beside = _saved_decorator(decorator, name, listed, existing) if decorator is not None else ""
        said = "\n".join(filter(None, [said, told, beside])) or "Nothing to save: no LoRA was trained"
        announce_lora(listed, said, cls.hidden.unique_id)
        log.info("Scion: %s", said.replace("\n", "; "))
        return io.NodeOutput(listed or ExecutionBlocker(None), ui={"text": [said]})


def _saved(lora, name: str, existing: str, dialect: str) -> tuple[str, str]:
    """Writes the LoRA; its name in the loaders' lists, and what a person should know.

    Raises:
        BadInput: it cannot have the name, or not these keys.
    """
    wanted = paths.lora_file(name.strip() or getattr(lora, "name", "") or "lora")
    tensors, metadata = _named(lora, dialect)
    path, there = _written(wanted, existing, tensors, metadata, "LoRA")
    listed = paths.lora_listed(path)
    return listed, f"{'Already there' if there else 'Saved'}: {listed}"


def _saved_decorator(decorator, name: str, listed: str, existing: str) -> str:
    """Writes a decorator under the name that the LoRA has got, if there is one; what a person should know.

    Raises:
        BadInput: another file has its name, and nothing else is allowed.
    """
    from ..trainer_core.lora_file.decorator import to_tensors

    wanted = paths.lora_file(listed or name.strip() or decorator.name or "lora", ENDING)
    path, there = _written(wanted, existing, to_tensors(decorator.weight), decorator.metadata, "decorator")
    return f"Decorator {'already there' if there else 'saved'}: {paths.lora_listed(path)}"


def _saved_word(word, existing: str) -> str:
    """Writes a new word; how prompts call it.

    Raises:
        BadInput: another file has its name, and nothing else is allowed.
    """
    from ..trainer_core.adapters.words_config import stem
    from ..trainer_core.lora_file.words import to_tensors

    wanted = paths.word_file(f"{stem(word.name)}.safetensors")
    path, _ = _written(wanted, existing, to_tensors(word.vectors), word.metadata, "embedding")
    paths.words_changed()
    return f"embedding:{path.stem}"


def _written(wanted: Path, existing: str, tensors: dict, metadata: dict[str, str], what: str) -> tuple[Path, bool]:
    """Where these tensors lie now, and whether they lay there already.

    Args:
        what: they are, for a person.

    Raises:
        BadInput: another file has the name, and nothing else is allowed.
    """
    from ..trainer_core.lora_file.safe_io import write_tensors

    path, there = _place(wanted, existing, digest_of(tensors), what)
    if not there:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, metadata)
    return path, there


def _named(lora, dialect: str) -> tuple[dict, dict[str, str]]:
    """The tensors under a dialect's keys, and the file's metadata; a LoRA of other nodes is left as it is.

    Raises:
        BadInput: it is not known which model the LoRA belongs to, so its keys cannot be named anew.
    """
    metadata = getattr(lora, "metadata", {})
    if dialect == AS_IT_IS:
        return dict(lora), metadata
    target = getattr(lora, "target", None)
    if target is None:
        raise BadInput(
            f"dialect: {dialect!r}, but only a LoRA that comes from Train LoRA (Scion) can be named anew; choose "
            f"{AS_IT_IS!r}"
        )
    from ..trainer_core.lora_file.dialects import IN_FULL, lora_from_tensors, lora_to_tensors
    from ..trainer_core.lora_file.hashes import hash_metadata

    scales = tuple(f".{part}" for part in IN_FULL)
    dtype = next((tensor.dtype for name, tensor in lora.items() if not name.endswith(scales)), None)
    if dtype is None:
        raise BadInput("lora: holds no matrices, so there is nothing to name anew")
    tensors = lora_to_tensors(lora_from_tensors(lora, target, metadata), dialect, target, dtype)
    return tensors, {**metadata, **hash_metadata(tensors, metadata)}


def _place(wanted: Path, existing: str, digest: str, what: str) -> tuple[Path, bool]:
    """Where to write, and whether this very file lies there already.

    Raises:
        BadInput: another file has the name, and nothing else is allowed.
    """
    path, number = wanted, 2
    while path.exists():
        if _digest_in(path) == digest:
            return path, True
        if existing == OVERWRITE:
            break
        if existing == ERROR:
            raise BadInput(
                f"name: {path} is another {what} already; choose another name, or set existing to {NUMBER!r}"
            )
        path, number = wanted.with_name(f"{wanted.stem}-{number}.safetensors"), number + 1
    return path, False


def _digest_in(path: Path) -> str:
    """The digest of a file's tensors; empty if it cannot be read, as with a file that is no LoRA."""
    from ..trainer_core.lora_file.safe_io import read_tensors

    try:
        return digest_of(read_tensors(path)[0])
    except BadInput:
        return ""
