"""Makes scion-tiny from nothing: tokenizer, text encoder, VAE, UNet, in that order (`python -m trainer_core.assets.build`)."""
