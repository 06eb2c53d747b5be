"""Gradient checkpointing for HunyuanDiT's blocks, which diffusers' model does not have."""

import torch
from diffusers import HunyuanDiT2DModel
from diffusers.models.transformers.hunyuan_transformer_2d import HunyuanDiTBlock


class RecomputedBlock(HunyuanDiTBlock):
    """A block that can forget its activations and compute them again in the backward pass."""

    gradient_checkpointing = False
    """Set by diffusers' `enable_gradient_checkpointing`, and the function with it."""

    def forward(self, hidden_states, encoder_hidden_states=None, temb=None, image_rotary_emb=None, skip=None):
        given = hidden_states, encoder_hidden_states, temb, image_rotary_emb, skip
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(super().forward, *given)
        return super().forward(*given)


def let_recompute(transformer: HunyuanDiT2DModel) -> None:
    """Gives a transformer what its `enable_gradient_checkpointing` asks for, in place."""
    for block in transformer.blocks:
        # A block of another class would need its weights moved; this one differs in how it is called alone.
        block.__class__ = RecomputedBlock
    transformer._supports_gradient_checkpointing = True
