"""A run's attention backend: other kernels for the denoiser, the same numbers, and nothing left behind."""

import importlib.util

import pytest
import torch
from diffusers import FluxTransformer2DModel, HunyuanDiT2DModel, SD3Transformer2DModel
from diffusers.models import attention_dispatch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from trainer_core.engine import attention, memory_advice
from trainer_core.engine.attention_kinds import KINDS, REFUSED
from trainer_core.engine.events import Steps
from trainer_core.engine.memory_estimate import TrainerMemory
from trainer_core.errors import BadInput, ScionError
from trainer_core.recipe import write

CPU = torch.device("cpu")
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
SOFTMAX = (torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default)
HERE = [name for name in KINDS if name in ("native", "_native_flash", "_native_math")]
"""Those that compute on a CPU."""


class Kernels(TorchDispatchMode):
    """Counts by kernel the attentions of heads narrower than those of the tests' text encoder and VAE."""

    def __init__(self, below=32):
        super().__init__()
        self.below, self.flash, self.flash_backward, self.math = below, 0, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is FLASH and args[0].shape[-1] < self.below:
            self.flash += 1
        elif function is BACKWARD and args[1].shape[-1] < self.below:
            self.flash_backward += 1
        elif function in SOFTMAX:
            self.math += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def step(make_trainer):
    """The loss and the gradients of one step with a backend, and which kernels computed it."""

    def go(name, changes=(), precision="fp32"):
        trainer = make_trainer({"run.steps": 1, "run.attention_backend": name, **dict(changes)}, precision)
        with attention.using(trainer.model.denoiser, name), Kernels() as kernels:
            trainer.go()
        gradients = torch.cat([gradient.flatten() for gradient in trainer.gradients[0].values()])
        return trainer.losses[0], gradients, kernels

    return go


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("bf16", 1e-3)])
def test_a_backend_changes_the_kernels_of_a_step_and_not_its_numbers(step, precision, near):
    loss, gradients, usual = step("auto", precision=precision)
    assert usual.flash == usual.flash_backward > 10
    for name in HERE:
        other, others, kernels = step(name, precision=precision)
        own = (0, 0) if name == "_native_math" else (usual.flash, usual.flash_backward)
        assert (kernels.flash, kernels.flash_backward) == own, name
        # The text encoder's and the VAE's attention stays as it is.
        assert kernels.math == usual.math + usual.flash - kernels.flash
        assert other == pytest.approx(loss, rel=near)
        assert (others - gradients).abs().max() < near * gradients.abs().max().clamp(min=1)


def test_what_checkpointing_computes_again_is_computed_by_the_backend_too(step):
    changes = {"run.gradient_checkpointing": True}
    _, gradients, usual = step("auto", changes)
    _, others, kernels = step("_native_math", changes)
    assert usual.flash == 2 * usual.flash_backward and kernels.flash == kernels.flash_backward == 0
    torch.testing.assert_close(others, gradients, rtol=0, atol=1e-5)


BUSY = {"run.steps": 1, "run.preview_every": 1, "run.validate_every": 1, "dataset.holdout": 1}


def test_a_run_trains_previews_and_validates_with_it_and_puts_back_what_was_there(train, model, snapshot):
    before = snapshot(model.denoiser)
    active = attention_dispatch._AttentionBackendRegistry.get_active_backend()
    with Kernels() as usual:
        train(BUSY, "usual", model=model)
    with Kernels() as kernels:
        train({**BUSY, "run.attention_backend": "_native_math"}, model=model)
    assert usual.flash > 2 * usual.flash_backward > 20
    assert (kernels.flash, kernels.flash_backward) == (0, 0)
    assert snapshot(model.denoiser) == before
    assert attention_dispatch._AttentionBackendRegistry.get_active_backend() == active


def losses(heard):
    return [loss for event in heard.of(Steps) for loss in event.losses]


def test_a_run_may_go_on_with_another_kernel(train):
    _, whole = train({"run.steps": 4}, "whole")
    _, first = train({"run.steps": 4, "run.attention_backend": "_native_math"}, stop_after=2)
    result, rest = train({"run.steps": 4})
    assert (result.status, len(losses(first))) == ("finished", 2)
    assert losses(first) + losses(rest) == pytest.approx(losses(whole), rel=1e-4)


def test_masks_are_obeyed_and_a_backend_without_them_is_named(model):
    numbers = torch.Generator().manual_seed(1)
    noisy, text = torch.randn(2, 4, 8, 8, generator=numbers), torch.randn(2, 7, 32, generator=numbers)
    hides = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])

    def predicted(name, mask=hides):
        with torch.no_grad(), attention.using(model.denoiser, name):
            return model.denoiser(noisy, 500, text, encoder_attention_mask=mask).sample

    masked = predicted("auto")
    assert (masked - predicted("auto", None))[1].abs().max() > 1e-3
    for name in ("native", "_native_math"):
        torch.testing.assert_close(predicted(name), masked, rtol=0, atol=1e-5)
    with pytest.raises(ScionError, match="run.attention_backend: _native_flash takes no masks, .*; choose auto"):
        predicted("_native_flash")
    torch.testing.assert_close(predicted("auto"), masked, rtol=0, atol=0)


def test_other_packages_kernels_are_given_what_autocast_gives_torchs(monkeypatch):
    given = []

    def spy(query, key, value, attn_mask=None, **more):
        given.extend([query.dtype, key.dtype, value.dtype, attn_mask.dtype])
        return usual(query, key, value, attn_mask=attn_mask, **more)

    usual = attention.dispatch_attention_fn
    monkeypatch.setattr(attention, "dispatch_attention_fn", spy)
    exact, rough = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8, dtype=torch.bfloat16)
    led = attention._Led(attention_dispatch.AttentionBackendName.NATIVE)
    with torch.autocast("cpu", torch.bfloat16), led:
        # As after a norm of query and key, which autocast computes in fp32.
        F.scaled_dot_product_attention(exact, exact, rough, attn_mask=torch.zeros(5, 5))
    assert given == [torch.bfloat16] * 4


def sd3():
    heads = {"attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32, "pos_embed_max_size": 8}
    settings = {"sample_size": 8, "joint_attention_dim": 16, "pooled_projection_dim": 16, "dual_attention_layers": (0,)}
    return SD3Transformer2DModel(num_layers=2, patch_size=2, in_channels=4, out_channels=4, **heads, **settings), {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "pooled_projections": torch.randn(2, 16),
        "timestep": torch.tensor([10, 700]),
    }


def flux():
    heads = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 4, 8)}
    sizes = {"in_channels": 4, "joint_attention_dim": 16, "pooled_projection_dim": 16}
    return FluxTransformer2DModel(num_layers=1, num_single_layers=1, **heads, **sizes), {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "pooled_projections": torch.randn(2, 16),
        "timestep": torch.tensor([0.1, 0.7]),
        "img_ids": torch.zeros(6, 3),
        "txt_ids": torch.zeros(5, 3),
    }


def hunyuan():
    heads = {"attention_head_dim": 8, "num_attention_heads": 2}
    sizes = {"sample_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 16, "num_layers": 2}
    texts = {"cross_attention_dim": 16, "cross_attention_dim_t5": 16, "pooled_projection_dim": 16}
    lengths = {"text_len": 5, "text_len_t5": 6}
    rotary = torch.randn(16, 8), torch.randn(16, 8)
    return HunyuanDiT2DModel(**heads, **sizes, **texts, **lengths), {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([10.0, 700.0]),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "text_embedding_mask": torch.ones(2, 5),
        "encoder_hidden_states_t5": torch.randn(2, 6, 16),
        "text_embedding_mask_t5": torch.ones(2, 6),
        "image_meta_size": torch.zeros(2, 6),
        "style": torch.zeros(2, dtype=torch.long),
        "image_rotary_emb": rotary,
    }


@pytest.mark.parametrize("make", [sd3, flux, hunyuan])
def test_transformers_obey_it_whether_or_not_they_obey_diffusers_switch(make, snapshot):
    torch.manual_seed(5)
    denoiser, told = make()
    before, found = snapshot(denoiser), {}
    for name in ("auto", *HERE, "auto"):
        attention.try_out(name, denoiser, torch.float32, CPU)
        denoiser.zero_grad()
        with attention.using(denoiser, name), Kernels(100) as kernels:
            answer = denoiser(**told, return_dict=False)[0]
            answer.sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in denoiser.parameters() if p.grad is not None])
        usual = found.setdefault("auto", (answer, gradients))
        assert (kernels.flash > 1) == (name != "_native_math"), name
        torch.testing.assert_close(answer, usual[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(gradients, usual[1], rtol=1e-4, atol=1e-4)
    denoiser.zero_grad()
    assert snapshot(denoiser) == before
    assert all(getattr(part.processor, attention.SWITCH, None) is None for part in attention.attentions(denoiser))


def test_modules_that_share_a_processor_have_it_back_as_it_was():
    denoiser, _ = flux()
    modules = attention.attentions(denoiser)
    for module in modules:
        module.processor = modules[0].processor
    with attention.using(denoiser, "_native_math"):
        assert modules[0].processor._attention_backend.value == "_native_math"
    assert modules[0].processor._attention_backend is None


# ---- what cannot be


@pytest.mark.parametrize("name", ["_native_efficient", "_native_cudnn", "flash", "xformers"])
def test_what_needs_a_gpu_is_refused_before_anything_is_written(train, tmp_path, name):
    with pytest.raises(BadInput, match=f"^run.attention_backend: {name} computes on cuda, this run trains on cpu; "):
        train({"run.attention_backend": name})
    assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match="_native_flash computes on cuda and cpu, this run trains on mps;"):
        attention.check("_native_flash", torch.device("mps"))


@pytest.mark.parametrize(("name", "package"), [("flash", "flash_attn"), ("xformers", "xformers")])
def test_what_is_not_installed_is_named_with_its_pip_line(name, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(BadInput, match=rf'attention_backend: {name} is not installed here, .*: pip install "\w+-?\w+>'):
        attention.check(name, torch.device("cuda"))


def test_a_backend_that_fails_on_heads_of_this_model_is_named_with_its_reason(model, monkeypatch):
    def narrow(query, *others, **more):
        if query.shape[-1] > 4:
            raise RuntimeError("no kernel for such heads\nstack")
        return usual(query, *others, **more)

    usual = attention.dispatch_attention_fn
    monkeypatch.setattr(attention, "dispatch_attention_fn", narrow)
    with pytest.raises(
        BadInput, match=r"native cannot train .*cpu, float32, heads 8 wide: no kernel for such heads\);"
    ):
        attention.try_out("native", model.denoiser, torch.float32, CPU)
    attention.try_out("auto", model.denoiser, torch.float32, CPU)


def test_a_kernel_through_which_nothing_learns_is_refused(model, monkeypatch):
    usual = attention.dispatch_attention_fn
    monkeypatch.setattr(attention, "dispatch_attention_fn", lambda *given, **more: usual(*given, **more).detach())
    with pytest.raises(BadInput, match="it has no backward pass"):
        attention.try_out("native", model.denoiser, torch.float32, CPU)


def test_an_attention_that_would_not_hear_of_it_is_named(model):
    class Deaf:
        def __call__(self, attn, hidden_states, *given, **more):
            return hidden_states

    attention.attentions(model.denoiser)[0].processor = Deaf()
    with pytest.raises(BadInput, match=r"native, but UNet2DConditionModel has an attention of its own \(Deaf\);"):
        attention.try_out("native", model.denoiser, torch.float32, CPU)


def test_backends_that_diffusers_knows_are_choices_or_refused_with_the_reason(make_recipe):
    known = {backend.value for backend in attention_dispatch.AttentionBackendName}
    assert set(KINDS) <= known <= {*KINDS, *REFUSED} and not set(KINDS) & set(REFUSED)
    with pytest.raises(BadInput, match=r"^run.attention_backend: 'sage' cannot be used: it has no backward pass, "):
        make_recipe({"run.attention_backend": "sage"})
    with pytest.raises(BadInput, match="did you mean '_native_flash'"):
        make_recipe({"run.attention_backend": "native_flash"})


def test_the_command_line_takes_it_and_refuses_with_code_2(scion, make_recipe, tmp_path):
    write(make_recipe({"run.steps": 1}), tmp_path / "recipe.toml")
    asked = ["train", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--quiet", "--set"]
    code, _, said = scion(*asked, "run.attention_backend=xformers")
    assert code == 2 and "xformers computes on cuda, this" in said and not (tmp_path / "run").exists()
    with Kernels() as kernels:
        code, _, said = scion(*asked, "run.attention_backend=_native_math")
    assert code == 0 and kernels.flash == 0, said


# ---- memory


def test_the_estimate_knows_the_kernels(make_trainer):
    trainer = make_trainer({"run.attention_backend": "_native_math", "dataset.resolution": 128, "run.steps": 1})
    with attention.using(trainer.model.denoiser, "_native_math"):
        trainer.go()
        memory = TrainerMemory(trainer)
        present, usual = memory.step(), memory.step(backend="auto")
    assert present.passing > 1.2 * usual.passing
    assert TrainerMemory(trainer).step().passing == present.passing
    remedy = memory_advice._step_remedies(trainer)[0]
    assert (remedy.settings, remedy.now, remedy.same_run) == (
        {"run.attention_backend": "auto"}, "_native_math", True,
    )  # fmt: skip
    assert present.total - memory.step(**remedy.rehearsed).total == present.total - usual.total > 0
