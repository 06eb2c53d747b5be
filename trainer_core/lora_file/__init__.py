"""LoRA files: names of keys in every dialect, metadata, safe reading and atomic writing."""
