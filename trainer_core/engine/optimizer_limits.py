"""Classes of the two families that cannot train a LoRA here, or go on exactly, and why."""

_WRAPS = "it is made around another optimiser, not over weights"
_LOSS = "it wants to compute the loss again within its step"
_SECOND = "it wants the gradient's own gradient"
_MODEL = "it wants the whole model, not weights"
_SORTED = "it wants the weights sorted by hand (use_muon); adv_optm.Muon_adv sorts them itself"
_OBJECTS = "its state has objects that neither safetensors nor JSON can hold"
_ZERO = "its numbers stop being finite while the B of a LoRA is zero, as it is at first"
_RISES = "the loss of a LoRA rises at every learning rate that was tried"
_MACHINES = "it is made for training on many machines, and needs the package einops"
_MATRICES = "it takes matrices only, and a LoRA of convolutions is none"

NOT_EXACT = {
    "adv_optm.*": (
        "kourkoutas_beta",
        "what it sums up between two steps lies outside of its state, and begins at zero",
    ),
}
"""Arguments with which a run that is gone on with differs from one that never stopped, and why."""

REFUSED = {
    "pytorch_optimizer.AdaGO": _SORTED,
    "pytorch_optimizer.AdaHessian": _SECOND,
    "pytorch_optimizer.AdaLOMO": _MODEL,
    "pytorch_optimizer.AdaMuon": _SORTED,
    "pytorch_optimizer.AdaShift": _ZERO,
    "pytorch_optimizer.AdamMini": _MODEL,
    "pytorch_optimizer.AliG": _LOSS,
    "pytorch_optimizer.BSAM": _LOSS,
    "pytorch_optimizer.Conda": _OBJECTS,
    "pytorch_optimizer.DeMo": _MACHINES,
    "pytorch_optimizer.DistributedMuon": _SORTED,
    "pytorch_optimizer.FriendlySAM": _WRAPS,
    "pytorch_optimizer.GSAM": _WRAPS,
    "pytorch_optimizer.Kate": _RISES,
    "pytorch_optimizer.LBFGS": _LOSS,
    "pytorch_optimizer.LOMO": _MODEL,
    "pytorch_optimizer.LookSAM": _WRAPS,
    "pytorch_optimizer.Lookahead": _WRAPS,
    "pytorch_optimizer.LoRARite": _MATRICES,
    "pytorch_optimizer.Magma": _WRAPS,
    "pytorch_optimizer.Muon": _SORTED,
    "pytorch_optimizer.MuonClip": _SORTED,
    "pytorch_optimizer.NorMuon": _SORTED,
    "pytorch_optimizer.OrthoGrad": _WRAPS,
    "pytorch_optimizer.PCGrad": _WRAPS,
    "pytorch_optimizer.SAM": _WRAPS,
    "pytorch_optimizer.SafeFP16Optimizer": _WRAPS,
    "pytorch_optimizer.ScalableShampoo": _OBJECTS,
    "pytorch_optimizer.ScheduleFreeWrapper": _WRAPS,
    "pytorch_optimizer.SophiaH": _SECOND,
    "pytorch_optimizer.SpectralSphere": _MATRICES,
    "pytorch_optimizer.TRAC": _WRAPS,
    "pytorch_optimizer.WSAM": _WRAPS,
}
