"""The host reads what LoRA's relatives trained: every key, and it computes what the trainer computed."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.adapters import lora
from trainer_core.families import registry

KINDS = {
    "lora": {},
    "rslora": {"adapter": "lora", "rslora": True, "alpha": 3.0},
    "dora": {"adapter": "dora"},
    "rsdora": {"adapter": "dora", "rslora": True, "alpha": 3.0},
    "loha": {"adapter": "loha", "alpha": 8.0},
    "lokr": {"adapter": "lokr", "alpha": 8.0},
    # Both factors whole, which readers give no scale.
    "lokr-whole": {"adapter": "lokr", "rank": 128, "alpha": 32.0},
    "lokr-factor": {"adapter": "lokr", "lokr_factor": 4},
    "oft": {"adapter": "oft"},
    "oft-16": {"adapter": "oft", "rank": 16},
}
TARGETS = {"linear": "attention+ff", "convolution": "re:.*conv.*|.*proj_(in|out)", "all": "all"}
DIALECTS = {"linear": "kohya-ldm", "convolution": "comfyui", "all": "auto"}
LEFT_OUT = ("lora key not loaded", "NOT LOADED", "ERROR lora", "ERROR loha", "ERROR lokr", "ERROR oft")


def trainers_own(run):
    """The denoiser as it stood in the trainer after its last step: from the checkpoint, not from the LoRA file."""
    asked = recipe.read(run.folder / "recipe.json")
    model = registry.load("scion-tiny")
    paths = lora.targeted_modules(model.denoiser, asked.adapter, model.family.targets)
    lora.inject(model.denoiser, asked.adapter, paths, asked.run.seed)
    kept = load_file(run.folder / "checkpoints" / f"step-{run.state['step']:08d}" / "adapter.safetensors")
    own = lora.parameters(model.denoiser)
    assert kept.keys() == own.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(kept[name])
    return model


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_host_reads_every_key_and_computes_what_the_trainer_computed(host, graph, kind, targets):
    config = {"learning_rate": 0.02, "targets": TARGETS[targets], "output_dialect": DIALECTS[targets], **KINDS[kind]}
    run = graph.run_of(host, host.run(graph.training(config=config)))
    trained = trainers_own(run)
    numbers = torch.Generator().manual_seed(5)
    given = {
        "noisy": torch.randn(2, 4, 8, 8, generator=numbers),
        "timesteps": torch.tensor([30, 900]),
        "text": torch.randn(2, 77, trained.denoiser.config.cross_attention_dim, generator=numbers),
    }
    save_file(given, host.base / "input" / "inputs.safetensors")
    before, answers = len(host.log()), {}
    for name, strength in (("trained", 1.0), ("bare", 0.0)):
        prompt = graph.training(config=config)
        prompt["apply"] = graph.node("ScionApplyLoRA", model=("base", 1), lora=("train", 0), strength_model=strength)
        prompt["probe"] = graph.node("ProbeDenoise", model=("apply", 0), file="inputs.safetensors")
        result = host.run(prompt)
        assert result.status == "success", graph.said(result)
        answers[name] = load_file(host.base / "output" / "inputs.safetensors")["answer"]
    assert not [mark for mark in LEFT_OUT if mark in host.log()[before:]]
    with torch.no_grad():
        told = {"text": given["text"]}
        expected = trained.family.predict(trained.denoiser, given["noisy"], given["timesteps"], told)
    difference, change = ((answers[name] - expected).abs().max() for name in answers)
    print(f"{kind} {targets}: differs by {difference:.1e}, of a change of {change:.2f}")
    assert difference < 1e-4
    # Or an adapter that does nothing at all would do.
    assert change > 5e-3
