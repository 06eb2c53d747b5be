"""Presets: what to begin with for a person, a style or an object, in a hurry or with care.

They are starting points after what the named trainers recommend or do by default, not results of ours.
"""

import difflib
from dataclasses import dataclass
from typing import Any

from .errors import BadInput


@dataclass(frozen=True)
class Half:
    """One of the two words of a preset's name."""

    values: dict[str, Any]
    """Settings by dotted name."""
    why: str
    """Of each value, and after whom; a sentence or two."""


SUBJECTS = {
    "person": Half(
        {"adapter.rank": 16, "adapter.targets": ["attention"]},
        "Faces need more steps than other subjects: 800 to 1,200 worked for Hugging Face's DreamBooth article, hence "
        "1,000. Rank 16 is ai-toolkit's.",
    ),
    "style": Half(
        {"adapter.rank": 32, "adapter.targets": ["attention+ff"]},
        "A style is in every part of every picture: the feed-forward layers are trained too, as OneTrainer's preset "
        "for SD 1.5 does, with a larger rank (4 to 128 are common, sd-scripts says), for ai-toolkit's 2,000 steps.",
    ),
    "object": Half(
        {"adapter.rank": 8, "adapter.targets": ["attention"]},
        "The DreamBooth example of diffusers learns a dog from five pictures in 500 steps at its default rank of 4; 8 "
        "leaves room for more detail.",
    ),
}
PACES = {
    "fast": Half(
        {"optimizer.learning_rate": 3e-4, "optimizer.schedule": "constant"},
        "Half the steps at OneTrainer's learning rate for LoRAs of SD 1.5 (which has it with batches of 4): to see "
        "soon whether the pictures and captions do.",
    ),
    "balanced": Half(
        {"optimizer.learning_rate": 1e-4, "optimizer.schedule": "constant"},
        "The constant learning rate of 1e-4 that diffusers, sd-scripts and ai-toolkit have in their examples.",
    ),
    "careful": Half(
        {"optimizer.learning_rate": 1e-4, "optimizer.schedule": "cosine"},
        "Twice the steps while the learning rate falls to 0 as a cosine, as in diffusers' text-to-image example for "
        "LoRAs: the same sum of learning rates, with small steps at the end.",
    ),
}
STEPS = {"person": 1000, "style": 2000, "object": 500}
SHARE = {"fast": 0.5, "balanced": 1, "careful": 2}
"""Of those steps, by pace."""
COMMON = {
    "adapter.alpha": None,
    "optimizer.name": "adamw",
    "optimizer.custom": "",
    "optimizer.warmup_steps": 0,
    "objective.min_snr_gamma": 5.0,
    "run.epochs": 0,
    "run.batch_size": 1,
    "run.accumulation": 1,
}
"""What all have: learning rates mean little without the optimiser, the batch and alpha that go with them. Min-SNR of 5
is what its authors (Hang et al. 2023) and diffusers' guide recommend."""
PRESETS: dict[str, dict[str, Any]] = {
    f"{subject}/{pace}": {
        **SUBJECTS[subject].values,
        **PACES[pace].values,
        "run.steps": int(STEPS[subject] * SHARE[pace]),
        **COMMON,
    }
    for subject in SUBJECTS
    for pace in PACES
}
"""The settings of each by dotted name: always the same ones, so that nothing is left of one when another is chosen."""


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain values with those of its preset where it says nothing itself; without the key `preset`.

    Raises:
        BadInput: there is no such preset, or it has nothing left to say.
    """
    values = dict(values)
    name = values.pop("preset", None)
    if name is None:
        return values
    if not isinstance(name, str) or name not in PRESETS:
        near = difflib.get_close_matches(str(name).lower(), PRESETS, 1)
        raise BadInput(
            f"preset: {name!r:.80} is none of {', '.join(PRESETS)}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    left = 0
    for setting, value in PRESETS[name].items():
        part, _, key = setting.partition(".")
        said = values.get(part, {})
        if isinstance(said, dict) and key not in said:  # what is no table is complained of later
            values[part], left = {**said, key: value}, left + 1
    if not left:
        raise BadInput(f"preset: {name} changes nothing, for all of its settings are set; take it or some of them out")
    return values
