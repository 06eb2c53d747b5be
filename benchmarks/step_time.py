"""Seconds of a training step against a plain loop (diffusers UNet, peft, fused AdamW), in alternation in one process.

    python benchmarks/step_time.py [--photos DIR] [--blocks 6] [--only b1-fp32,b4-bf16]

Both train the same LoRA (rank 4 on attention) on a UNet of Stable Diffusion 1.5's full shape with random weights, on
cached latents and captions at 256×256. The plain loop does nothing else: no logging, no clipping, no checks.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from trainer_core.adapters import lora
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import objective
from trainer_core.engine.device import PRECISIONS
from trainer_core.engine.isolation import isolated
from trainer_core.engine.trainer import Trainer
from trainer_core.families.base import Model
from trainer_core.families.clip_text import ClipText
from trainer_core.families.clip_vae import ClipVaeEncoder
from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer
from trainer_core.families.diffusion import Diffusion
from trainer_core.families.registry import FAMILIES
from trainer_core.families.stable_diffusion import SCHEDULE
from trainer_core.recipe import Recipe, from_dict

UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
CASES = {f"b{batch}-{precision}": (batch, precision) for precision in ("fp32", "bf16") for batch in (1, 4)}


def full_model(dtype: torch.dtype) -> Model:
    """Stable Diffusion 1.5's UNet with random weights; a small VAE and text encoder of the right widths suffice."""
    torch.manual_seed(0)
    # Made in its own precision at once: a copy in fp32 would be the process's peak.
    torch.set_default_dtype(dtype)
    unet = UNet2DConditionModel(**UNET).requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(**blocks, block_out_channels=(32,) * 4, layers_per_block=1).eval()
    text = CLIPTextModel(CLIPTextConfig(hidden_size=768, num_hidden_layers=1, intermediate_size=768)).eval()
    encoder = ClipVaeEncoder(vae, {"te": ClipText(text, clip_tokenizer())})
    return Model(FAMILIES["sd15"], unet, encoder, Diffusion(SCHEDULE), 512, "benchmark", "benchmark")


def recipe_for(photos: Path, batch: int, precision: str) -> Recipe:
    return from_dict(
        {
            "dataset": {"path": str(photos), "width": 256, "height": 256, "missing_captions": "empty"},
            "adapter": {"rank": 4},
            "run": {"steps": 10**6, "batch_size": batch, "precision": precision, "device": "cpu"},
        }
    )


class Ours:
    def __init__(self, model: Model, recipe: Recipe, dataset: Dataset):
        paths = lora.targeted_modules(model.denoiser, recipe.adapter, model.family.targets)
        lora.inject(model.denoiser, recipe.adapter, paths, recipe.run.seed)
        self.trainer = Trainer(recipe, model, dataset, torch.device("cpu"), recipe.run.precision)

    def run(self, steps: int) -> None:
        end = self.trainer.step + steps
        self.trainer.train(lambda event: None, lambda: self.trainer.step >= end)


class Plain:
    def __init__(self, unet, recipe: Recipe, batches: list, model: Model, paths: list[str]):
        torch.manual_seed(0)
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=paths), unet)
        self.unet, self.batches, self.scheduler = unet, batches, model.process.scheduler
        self.dtype = PRECISIONS[recipe.run.precision]
        self.parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        self.rate = get_scheduler("constant", self.optimizer)
        self.position = 0
        unet.train()

    def loss(self, latents, text, noise, timesteps) -> torch.Tensor:
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            predicted = self.unet(noisy, timesteps, text).sample
        return F.mse_loss(predicted.float(), noise.float())

    def run(self, steps: int) -> None:
        for _ in range(steps):
            latents, text = self.batches[self.position % len(self.batches)]
            noise, timesteps = torch.randn_like(latents), torch.randint(1000, (len(latents),))
            self.loss(latents, text, noise, timesteps).backward()
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.position += 1


def compare_once(ours: Ours, plain: Plain, batch) -> tuple[float, float]:
    """Largest relative difference of loss and of gradients, on the same draws and the same LoRA."""
    recipe, model = ours.trainer.recipe, ours.trainer.model
    theirs = dict(plain.unet.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.trainer.parameters.items():
            torch.manual_seed(hash(name) % 2**31)
            parameter.copy_(torch.randn_like(parameter) * 0.02)
            theirs[name].copy_(parameter)
    names = [(0, key, i) for i, key in enumerate(batch.keys)]
    drawn = objective.draw(recipe.objective, batch.latents, 1000, 0, "training", names)
    told = ours.trainer.conditioning(batch)
    loss = objective.losses(recipe.objective, model, ours.trainer.modules.denoiser, batch.latents, told, drawn).mean()
    reference = plain.loss(batch.latents, told["text"], drawn.noise, drawn.timesteps)
    loss.backward()
    reference.backward()
    worst = 0.0
    for name, parameter in ours.trainer.parameters.items():
        scale = theirs[name].grad.abs().max().clamp(min=1e-12)
        worst = max(worst, float((parameter.grad - theirs[name].grad).abs().max() / scale))
        parameter.grad = theirs[name].grad = None
    return abs(float(loss.detach() / reference.detach()) - 1), worst


def measure(case: str, photos: Path, blocks: int) -> None:
    batch, precision = CASES[case]
    recipe = recipe_for(photos, batch, precision)
    model = full_model(PRECISIONS[precision])
    # The second UNet stands on the same weights, so that neither finds memory warmer than the other.
    twin = UNet2DConditionModel(**UNET).to("meta").requires_grad_(False)
    twin.load_state_dict(model.denoiser.state_dict(), assign=True)
    scan = scan_folder(recipe.dataset)
    dataset = Dataset(scan.items, recipe.dataset, 0, 8, 256)
    dataset.encode(model.encoder)
    ours = Ours(model, recipe, dataset)
    loaded = [dataset.load(ours.trainer.order.batch(i)) for i in range(ours.trainer.order.batches_per_epoch)]
    if any(len(b.keys) != batch for b in loaded):
        raise SystemExit(f"{len(scan.items)} pictures are no multiple of {batch}: short batches would spoil the times")
    batches = [(b.latents, ours.trainer.conditioning(b)["text"]) for b in loaded]
    plain = Plain(twin, recipe, batches, model, list(lora.layers(model.denoiser)))
    loss_off, gradient_off = compare_once(ours, plain, loaded[0])
    times = {"ours": [], "plain": []}
    for block in range(blocks + 1):
        order = [("ours", ours), ("plain", plain)]
        for name, loop in order if block % 2 else reversed(order):
            start = time.perf_counter()
            loop.run(2)
            if block:
                times[name].append((time.perf_counter() - start) / 2)
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    ours_median, plain_median = (statistics.median(times[name]) for name in ("ours", "plain"))
    print(
        f"{case}: ours {ours_median:.2f} s, plain {plain_median:.2f} s, "
        f"ratio of medians {ours_median / plain_median:.3f}, median of ratios {statistics.median(ratios):.3f}; "
        f"loss differs by {loss_off:.1e}, gradients by {gradient_off:.1e}; peak memory {peak_memory() / 1e9:.2f} GB",
        flush=True,
    )


def peak_memory() -> int:
    """Most bytes that the process has held; what the system tells, else what it holds now."""
    told = psutil.Process().memory_info()
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return getattr(told, "peak_wset", told.rss)


def drawn_photos(folder: Path) -> Path:
    """Eight pictures of noise, for a machine without photographs: a step's time does not depend on what they show."""
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a dataset folder; its pictures must be a multiple of four")
    parser.add_argument("--blocks", type=int, default=6, help="alternations, of two steps each")
    parser.add_argument("--only", default=",".join(CASES), help="cases, of " + ", ".join(CASES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = given.photos or drawn_photos(Path(folder))
        for case in given.only.split(","):
            with isolated():
                measure(case, photos, given.blocks)


if __name__ == "__main__":
    main()
