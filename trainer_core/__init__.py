"""Scion's engine: trains LoRA adapters for diffusion models, without ComfyUI and without a launcher."""

__version__ = "0.1.0"
