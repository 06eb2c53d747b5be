"""scion-tiny's CLIPTextModel, taught to say from each caption what is on the picture."""

import random

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..scenes import COLOURS, RADIUS, SHAPES, random_scene, varied_caption
from .progress import Progress, warm_cosine

WIDTH = 128


def new(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=8,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _questions(scene, caption) -> list[int]:
    """What a reader of the caption knows: indices of shape, colour, background, size; -1 where it is not said."""
    words = caption.replace(",", " ").split()
    return [
        list(SHAPES).index(scene.shape) if scene.shape in words else len(SHAPES),
        list(COLOURS).index(scene.colour),
        list(COLOURS).index(scene.background),
        list(RADIUS).index(scene.size) if scene.size in words else len(RADIUS),
    ]


def train(tokenizer: CLIPTokenizer, steps: int, seed: int = 0) -> CLIPTextModel:
    """Reads random captions and answers four questions about the scene from the end token or any pad behind it.

    Every position after the caption is taught alike, because the UNet attends to all 77. The answering heads are
    thrown away."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = new(tokenizer).train()
    heads = nn.ModuleList(nn.Linear(WIDTH, n) for n in (len(SHAPES) + 1, len(COLOURS), len(COLOURS), len(RADIUS) + 1))
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    report = Progress("text encoder", steps, every=100)
    for step in range(steps):
        scenes = [random_scene(rng) for _ in range(48)]
        captions = [varied_caption(scene, rng) for scene in scenes]
        ids = tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids
        ends = ids.argmax(1)  # the end token has the highest id
        chosen = ends + (torch.rand(len(ends)) * (77 - ends)).long()
        states = model(ids).last_hidden_state[torch.arange(len(ids)), chosen]
        answers = torch.tensor([_questions(*pair) for pair in zip(scenes, captions, strict=True)])
        loss = sum(F.cross_entropy(head(states), answers[:, i]) for i, head in enumerate(heads))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        report(step, loss=loss.detach())
    return model.eval().requires_grad_(False)
