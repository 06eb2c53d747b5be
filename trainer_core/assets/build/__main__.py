"""`python -m trainer_core.assets.build --out FOLDER`: a part that is already in the folder is not made again."""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from . import text_encoder, tokenizer, unet, vae


def main() -> None:
    parser = argparse.ArgumentParser(description="Train scion-tiny from nothing (about an hour on two CPU cores).")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--text-steps", type=int, default=700)
    parser.add_argument("--vae-steps", type=int, default=2200)
    parser.add_argument("--unet-steps", type=int, default=4000)
    options = parser.parse_args()
    out: Path = options.out

    def made(part: str) -> bool:
        return (out / part / "config.json").exists()

    if not (out / "tokenizer" / "vocab.json").exists():
        tokenizer.build(out / "tokenizer")
    words = CLIPTokenizer.from_pretrained(out / "tokenizer")
    if not made("text_encoder"):
        text_encoder.train(words, options.text_steps).half().save_pretrained(out / "text_encoder")
    if not made("vae"):
        vae.fit_scale(vae.train(options.vae_steps)).half().save_pretrained(out / "vae")
    if not made("unet"):
        reader = CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32).eval()
        coder = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval()
        model = unet.train(coder, reader, words, options.unet_steps, out / "unet-unfinished")
        model.half().save_pretrained(out / "unet")
        shutil.rmtree(out / "unet-unfinished")
    unet.noise_schedule().save_pretrained(out / "scheduler")
    _write_index(out)


def _write_index(out: Path) -> None:
    """model_index.json, so that diffusers' StableDiffusionPipeline reads the folder."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(out / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(out / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(out / "unet"),
        scheduler=unet.noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_config(out)


if __name__ == "__main__":
    main()
