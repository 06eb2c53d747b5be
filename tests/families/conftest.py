"""A copy of the base to change, a base with CLIP's own vocabulary, and what a loaded model predicts."""

import json
import shutil

import pytest
import torch

from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer

PROMPT = "a small red ring on a blue background"


@torch.no_grad()
def predict_from(model, prompt=PROMPT, dtype=torch.float32):
    numbers = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 4, 8, 8, generator=numbers).to(dtype)
    words = model.encoder.stack(model.encoder.encode_captions([prompt, "cross"]))["text"].to(dtype)
    return model.family.predict(model.denoiser, noisy, torch.tensor([10, 900]), {"text": words})


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="session")
def prompt():
    """The caption that `predict` predicts for, before "cross"."""
    return PROMPT


@pytest.fixture(scope="session")
def predict():
    """What a loaded model predicts of two noisy latents, always the same."""
    return predict_from


@pytest.fixture(scope="session")
def edit_json():
    """Changes keys of a JSON file."""
    return change_json


@pytest.fixture
def copied(base, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(base, folder)
    return folder


@pytest.fixture(scope="session")
def clip_base(tmp_path_factory, save_random_base):
    """As the base, with CLIP's own vocabulary and made for 512 pixels, neither of which one-file checkpoints bring."""
    folder = save_random_base(tmp_path_factory.mktemp("clip") / "base", clip_tokenizer())
    change_json(folder / "unet" / "config.json", sample_size=64)
    return folder
