"""The attention backends that a run can choose, by diffusers' names, and why the others train nothing here."""

KINDS = ("native", "_native_flash", "_native_efficient", "_native_cudnn", "_native_math", "flash", "xformers")
DEVICES = {"_native_flash": ("cuda", "cpu")} | dict.fromkeys(
    ("_native_efficient", "_native_cudnn", "flash", "xformers"), ("cuda",)
)
"""The kinds of devices that have kernels of them, where not all have. On others torch would take its own in silence."""
WITHOUT_MASKS = ("_native_flash", "flash")
INSTALLED_BY = {
    "flash": 'pip install "flash-attn>=2.6.3" --no-build-isolation',
    "xformers": 'pip install "xformers>=0.0.29" --no-deps',
}
"""Without `--no-deps` pip would put another torch in the place of the one that is there."""

_NO_BACKWARD = "it has no backward pass, so that nothing would learn"
_FROM_HUB = "it is compiled code that is downloaded while the program runs; install flash-attn and choose flash"
_VARIED = "it is for captions of different lengths in one batch, which come padded to the denoisers; choose flash"
_HARDWARE = "it is for hardware that run.device does not know"

REFUSED = {
    "sage": _NO_BACKWARD,
    "sage_hub": _NO_BACKWARD,
    "sage_blackwell_hub": _NO_BACKWARD,
    "sage_varlen": _NO_BACKWARD,
    "_sage_qk_int8_pv_fp8_cuda": _NO_BACKWARD,
    "_sage_qk_int8_pv_fp8_cuda_sm90": _NO_BACKWARD,
    "_sage_qk_int8_pv_fp16_cuda": _NO_BACKWARD,
    "_sage_qk_int8_pv_fp16_triton": _NO_BACKWARD,
    "_flash_3": _NO_BACKWARD,
    "_flash_varlen_3": _VARIED,
    "flash_varlen": _VARIED,
    "flash_varlen_hub": _VARIED,
    "_flash_3_varlen_hub": _VARIED,
    "flash_hub": _FROM_HUB,
    "flash_4_hub": _FROM_HUB,
    "_flash_3_hub": _FROM_HUB,
    "aiter_fa2_hub": _FROM_HUB,
    "flex": "without torch.compile it computes as _native_math does; choose that",
    "_native_npu": _HARDWARE,
    "_native_xla": _HARDWARE,
}
