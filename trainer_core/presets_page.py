"""Presets as docs/presets.md (`python -m trainer_core.presets_page`): their values, why, and after whom."""

from pathlib import Path
from typing import Any

from .presets import COMMON, PACES, PRESETS, SUBJECTS

PAGE = Path(__file__).parent.parent / "docs" / "presets.md"
VARIED = [setting for setting in PRESETS["person/fast"] if setting not in COMMON]
HEAD = """# Presets

A preset fills the settings that matter most, for what is to be learned and how much time there is; whatever is set
beside it counts more, and everything can be changed afterwards.

- In the graph: _preset_ on LoRA Train Config. It shows which preset the settings equal, and under the pointer what
  differs from the one that was chosen last.
- On the command line: `scion train --preset person/balanced --dataset DIR`; in a recipe: `preset = "person/balanced"`,
  above its tables. A run's `recipe.json` holds the settings themselves.

They are starting points after the trainers and articles named below, for Stable Diffusion 1.5 and ten to fifty
pictures; they were not measured here. With other optimisers than `adamw` other learning rates are right, and the
built-in base, which is small, learns with larger ones, such as the 1.2e-3 of its example workflow.
Stable Diffusion 3 and FLUX.1 are flows, whose losses Min-SNR does not weigh: there `objective.min_snr_gamma` does
nothing, and the run says so. This page is made by `python -m trainer_core.presets_page` from the code's own table.
"""
TAIL = """
## What the dataset adds

No preset touches the dataset. For a **person** leave `flip` off, for a face is not symmetric, and consider pictures of
the class beside (`regularisation`): Hugging Face's article finds them important for faces, and of little effect for
other subjects. For a **style** `flip` doubles the pictures, as diffusers' text-to-image example does, unless writing or
sides matter; captions should say what is in a picture, not how it is drawn. For an **object** few pictures are enough
if their backgrounds differ.

## Sources

- [diffusers, DreamBooth with LoRA](https://github.com/huggingface/diffusers/blob/main/examples/dreambooth/README.md):
  1e-4, constant, batches of 1, 500 steps
- [diffusers, text-to-image with LoRA](https://huggingface.co/docs/diffusers/training/lora): 1e-4, cosine, mirrored
- [diffusers, Min-SNR weighting](https://huggingface.co/docs/diffusers/training/text2image#min-snr-weighting): 5
- [Hugging Face, Training Stable Diffusion with DreamBooth](https://huggingface.co/blog/dreambooth): steps for faces,
  prior preservation
- [ai-toolkit, example configuration](https://github.com/ostris/ai-toolkit/tree/main/config/examples): rank and alpha
  16, 1e-4, 2,000 steps of "500 - 4000"
- [sd-scripts, train_network](https://github.com/kohya-ss/sd-scripts/blob/main/docs/train_network.md): rank 4 to
  128, 1e-4
- [OneTrainer, preset of SD 1.5 LoRA](https://github.com/Nerogar/OneTrainer/tree/master/training_presets): 3e-4,
  attention and feed-forward layers
"""


def for_page() -> str:
    text = HEAD + "\n| preset | " + " | ".join(f"`{name}`" for name in VARIED) + " |\n|---|" + "---|" * len(VARIED)
    for name, values in PRESETS.items():
        text += f"\n| `{name}` | " + " | ".join(_told(values[setting]) for setting in VARIED) + " |"
    text += "\n\nAll have " + ", ".join(f"`{setting}` {_told(value)}" for setting, value in COMMON.items()) + ".\n"
    for title, halves in (("What", SUBJECTS), ("How long", PACES)):
        text += f"\n## {title}\n\n" + "".join(f"- **{name}**: {half.why}\n" for name, half in halves.items())
    return text + TAIL


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return {None: "empty (as rank)", "": "empty"}.get(value, f"{value:g}" if isinstance(value, float) else str(value))


if __name__ == "__main__":
    PAGE.write_text(for_page(), encoding="utf-8", newline="\n")
