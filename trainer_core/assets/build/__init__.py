"""Makes scion-tiny from nothing: tokenizer, text encoder, VAE, UNet (`python -m trainer_core.assets.build`)."""
