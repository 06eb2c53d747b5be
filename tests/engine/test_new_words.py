"""New words that learn, alone and beside a LoRA: what trains, what stays, and the way of their vectors into files."""

import json

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.adapters import lora, words
from trainer_core.adapters.words_config import WordsConfig
from trainer_core.engine import learning_parts, learning_words, metrics, objective
from trainer_core.engine.events import Finished, Previewed, Started, Steps
from trainer_core.engine.memory_estimate import TrainerMemory
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizers import build_optimizer
from trainer_core.errors import BadInput, ScionError
from trainer_core.families import new_words, registry
from trainer_core.families.new_words import Vocabulary
from trainer_core.idle_settings import RULES
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.safe_io import read_header
from trainer_core.lora_file.words import read_word
from trainer_core.sampler import load_for_sampling, words_beside

CAT = {"words.names": ["<my-cat>"], "dataset.trigger": "<my-cat>"}
ALONE = {**CAT, "words.alone": True}
BESIDE = {**CAT, "words.vectors": 2, "words.start": ["red ring"], "words.learning_rate": 2e-2}


def copies(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def changed(before, parameters):
    return {name for name, p in parameters.items() if not torch.equal(before[name], p)}


# ---- captions


def test_a_new_word_is_cut_out_of_a_caption_wherever_it_is_one():
    vocabulary = Vocabulary({"<my-cat>": 2, "zorb": 1, "zorb-2": 1})
    assert list(vocabulary.pieces("a <my-cat>, ZORB and zorb-2 on zorbs")) == [
        "a ",
        [-1, -2],
        ", ",
        [-3],
        " and ",
        [-4],
        " on zorbs",
    ]
    assert list(vocabulary.pieces("")) == [] and list(vocabulary.pieces("a cat")) == ["a cat"]
    assert vocabulary.held("two<MY-CAT>s") == {"<my-cat>"}


def test_windows_count_every_vector_and_keep_short_pieces_whole():
    text, word = list(range(100)), [-1, -2, -3]
    assert new_words.windows([text], 75) == [text[:75], text[75:]]
    assert new_words.windows([], 75) == [[]]
    assert new_words.windows([text[:74], word, [7]], 75) == [text[:74], [*word, 7]]
    assert new_words.windows([text[:72], word, [7]], 75) == [[*text[:72], *word], [7]]
    assert new_words.windows([text[:70], list(range(-1, -9, -1))], 75)[1] == [-6, -7, -8]


def test_a_caption_s_tokens_hold_the_word_s_vectors_in_its_place(model):
    plain = model.encoder.tokens(["a red ring on blue"])[0]["te"]
    learning_words.put(model, WordsConfig(names=["<my-cat>"], vectors=3), 0)
    tokens = model.encoder.tokens(["a red <my-cat> on blue", "a red ring on blue"])
    with_word = tokens[0]["te"]
    assert len(with_word) == 77 and with_word[3:6].tolist() == [-1, -2, -3]
    assert torch.equal(with_word[:3], plain[:3]) and torch.equal(with_word[6:], plain[4:75])
    assert torch.equal(tokens[1]["te"], plain)


# ---- learning


def test_the_loss_on_a_fixed_batch_falls_and_the_new_rows_alone_have_changed(model, snapshot):
    encoder = model.encoder.text_encoders["te"]
    before = snapshot(encoder), snapshot(model.denoiser)
    # A random base hardly listens to its captions.
    louder = [p for name, p in model.denoiser.named_parameters() if "attn2.to_v" in name or "attn2.to_out" in name]
    for parameter in louder:
        parameter.data *= 8
    learning_words.put(model, WordsConfig(names=["<my-cat>"], vectors=16), 0)
    numbers = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=numbers)
    drawn = objective.Draw(torch.randn(latents.shape, generator=numbers), torch.tensor([900, 950]))
    tokens = model.encoder.stack_tokens(model.encoder.tokens(["a red <my-cat>", "<my-cat> on blue"]))
    parameters = learning_parts.parameters(model)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=0.3, weight_decay=0), list(parameters.values()))
    losses = []
    for _ in range(60):
        told = model.encoder.encode_tokens(tokens)
        losses.append(objective.losses(ObjectiveConfig(), model, model.denoiser, latents, told, drawn).mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {"te.words.<my-cat>": (16, 32)}
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and "new" not in name] == []
    assert losses[-1] < 0.8 * losses[0], f"from {losses[0]:.3f} to {losses[-1]:.3f}"
    learning_parts.remove(model)
    for parameter in louder:
        parameter.data /= 8  # which float32 does without a rounding
    assert (snapshot(encoder), snapshot(model.denoiser)) == before


def test_words_begin_as_known_words_or_as_random_vectors_of_the_usual_length(model):
    table = model.encoder.text_encoders["te"].get_input_embeddings().weight
    red, ring = model.encoder.ids("red ring")["te"]
    config = WordsConfig(names=["<a>", "<b>"], vectors=3, start=["red ring", ""])
    learning_words.put(model, config, 7)
    held = learning_words.extract(model)
    assert torch.equal(held["<a>"]["te"], table[[red, ring, red]])
    lengths = held["<b>"]["te"].norm(dim=1)
    torch.testing.assert_close(lengths, table.norm(dim=1).mean().expand(3))
    learning_words.remove(model)
    learning_words.put(model, config, 7)
    assert torch.equal(learning_words.extract(model)["<b>"]["te"], held["<b>"]["te"])
    learning_words.remove(model)
    learning_words.put(model, config, 8)
    assert not torch.equal(learning_words.extract(model)["<b>"]["te"], held["<b>"]["te"])


def test_words_and_a_lora_learn_together_at_rates_of_their_own(make_trainer):
    trainer = make_trainer({**BESIDE, "run.steps": 2, "adapter.text_encoder": "on"})
    groups = trainer.optimizer.optimizer.param_groups
    assert [(float(group["lr"]), group["weight_decay"]) for group in groups] == [(1e-3, 0.01), (2e-2, 0.0)]
    assert groups[1]["params"] == [trainer.parameters["te.words.<my-cat>"]]
    before = copies(trainer.parameters)
    trainer.go()
    assert {name.split(".")[0] for name in before} >= {"te", "down_blocks"}
    assert {name for name in before if ".lora_B." in name} | {"te.words.<my-cat>"} <= changed(
        before, trainer.parameters
    )
    assert all(gradients["te.words.<my-cat>"].norm() > 0 for gradients in trainer.gradients)


def test_words_learn_on_when_the_adapter_of_the_text_encoder_has_stopped(make_trainer):
    settings = {**BESIDE, "run.steps": 3, "adapter.text_encoder": "on", "adapter.text_encoder_stop_step": 1}
    trainer = make_trainer({**settings, "adapter.dropout": 0.5, "dataset.holdout": 1})
    trainer._update = super(type(trainer), trainer)._update  # without what the test's keeps of gradients
    seen, dropping = [], []

    def watch():
        seen.append(copies(trainer.parameters))
        trainer.validate()
        (module,) = learning_parts.learning(trainer.model).values()
        dropping.append([any(part.training for part in layer.modules()) for layer in lora.layers(module).values()])
        return False

    trainer.go(watch)
    text = {name for name in seen[0] if name.startswith("te.")}
    moved = [changed(before, after) & text for before, after in zip(seen[:-1], seen[1:], strict=True)]
    assert moved == [text, {"te.words.<my-cat>"}, {"te.words.<my-cat>"}]
    assert all(dropping[0]) and not any(dropping[2]) and not any(dropping[3])


def test_gradient_checkpointing_reaches_the_text_encoder_and_changes_no_bit(make_trainer):
    plain, calls = make_trainer({**ALONE, "run.steps": 2}).go(), []
    trainer = make_trainer({**ALONE, "run.steps": 2, "run.gradient_checkpointing": True})
    (module,) = learning_parts.learning(trainer.model).values()
    module.encoder.layers[0].layer_norm1.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.go()
    assert len(calls) == 2 * 2
    assert trainer.losses == plain.losses
    assert not changed(plain.parameters, trainer.parameters)


def test_words_alone_learn_in_bf16_with_vectors_in_float32(make_trainer):
    exact = make_trainer({**ALONE, "run.steps": 2}).go()
    trainer = make_trainer({**ALONE, "run.steps": 2}, precision="bf16")
    before = copies(trainer.parameters)
    trainer.go()
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert words.table_of(trainer.model.encoder.text_encoders["te"]).weight.dtype == torch.bfloat16
    assert list(before) == ["te.words.<my-cat>"] == list(changed(before, trainer.parameters))
    for ours, theirs in zip(trainer.losses, exact.losses, strict=True):
        assert ours != theirs and ours == pytest.approx(theirs, rel=0.02)


def test_the_memory_of_a_step_counts_the_text_encoder(make_trainer):
    from .test_memory_estimate import SQUARE, measured

    trainer = make_trainer({**SQUARE, **ALONE})
    (module,) = learning_parts.learning(trainer.model).values()
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    real = measured(trainer) + weights
    assert TrainerMemory(trainer).step().total == pytest.approx(real, rel=0.1)


# ---- runs

TORTURE = {
    **BESIDE,
    "run.steps": 8,
    "run.accumulation": 2,
    "run.ema_decay": 0.9,
    "adapter.dropout": 0.2,
    "dataset.caption_dropout": 0.3,
    "dataset.shuffle_tags": True,
    "dataset.holdout": 1,
}


def word_tensors(result):
    return [load_file(path) for path in result.made.words]


@pytest.mark.parametrize("alone", [False, True])
def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, alone):
    asked = {**TORTURE, "words.alone": alone, "adapter.dropout": 0.0 if alone else 0.2, "dataset.workers": 0}
    straight, _ = train(asked, "straight")
    busy = {"run.preview_every": 2, "run.validate_every": 1, "run.checkpoint_every": 1}
    stopped, _ = train({**asked, **busy}, "stopped", stop_after=4)
    assert word_tensors(stopped)[0].keys() == {"emb_params"}
    assert not torch.equal(word_tensors(stopped)[0]["emb_params"], word_tensors(straight)[0]["emb_params"])
    resumed, heard = train({**asked, **busy, "dataset.workers": 1}, "stopped")
    assert heard.of(Started)[0].step == 4 and heard.of(Started)[0].words == 1
    assert torch.equal(word_tensors(resumed)[0]["emb_params"], word_tensors(straight)[0]["emb_params"])
    losses = [
        [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]
        for result in (straight, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    kept = resumed.folder / "checkpoints" / "step-00000008"
    names = set(load_file(kept / "adapter.safetensors"))
    assert "te.words.<my-cat>" in names and (names == {"te.words.<my-cat>"}) is alone
    assert torch.equal(load_file(kept / "my-cat.safetensors")["emb_params"], word_tensors(resumed)[0]["emb_params"])


def test_words_alone_leave_their_files_and_no_lora_and_a_finished_run_is_returned_at_once(train, base, snapshot):
    model = registry.load(str(base))
    before = snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)
    asked = {**ALONE, "words.names": ["<my-cat>", "zorb"], "dataset.caption_suffix": "zorb"}
    result, heard = train(asked, model=model)
    assert (snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)) == before
    assert not model.encoder.words
    files = [result.folder / "my-cat.safetensors", result.folder / "zorb.safetensors"]
    assert result.lora is None and list(result.made.words) == files == list(heard.of(Finished)[0].made.words)
    assert sorted(result.folder.glob("*.safetensors")) == files
    assert heard.of(Previewed) and heard.of(Started)[0].modules == 0
    again, heard = train(asked, model=model)
    assert not heard.of(Started) and (again.lora, again.made.words) == (None, result.made.words)
    files[1].unlink()
    again, heard = train(asked, model=model)
    assert heard.of(Started)[0].step == 3 and files[1].is_file()
    further, heard = train({**asked, "run.steps": 4}, model=model)
    assert heard.of(Started)[0].step == 3 and further.step == 4


def test_what_a_lora_alone_has_and_presets_set_changes_nothing_where_words_learn_alone(train):
    plain, _ = train({**ALONE, "run.steps": 2}, "plain")
    of_a_lora = {"adapter.rank": 9, "adapter.alpha": 2.0, "adapter.targets": ["attention+ff"]}
    of_a_lora |= {"optimizer.learning_rate": 0.5, "optimizer.weight_decay": 0.5}
    assert set(of_a_lora) == {rule.setting for rule in RULES if rule.idle is None and "words.alone" in rule.when}
    other, _ = train({**ALONE, **of_a_lora, "run.steps": 2}, "other")
    assert torch.equal(word_tensors(plain)[0]["emb_params"], word_tensors(other)[0]["emb_params"])


def test_previews_and_validation_see_the_word_as_it_has_learned(make_trainer):
    trainer = make_trainer({**ALONE, "dataset.holdout": 1})
    entry, loss = trainer.modules.entries(["a <my-cat>"])[0]["text"], trainer.validate()
    with torch.no_grad():
        trainer.parameters["te.words.<my-cat>"].mul_(-1)
    assert (trainer.modules.entries(["a <my-cat>"])[0]["text"] - entry).abs().max() > 0.01
    assert trainer.validate() != loss


def test_the_learning_rate_that_is_told_of_words_alone_is_their_own(train, monkeypatch):
    settings = {**ALONE, "words.learning_rate": 0.6, "run.steps": 2}
    _, heard = train(settings, "fine")
    assert [event.learning_rate for event in heard.of(Steps)] == [0.6, 0.6]
    usual = torch.optim.AdamW.step

    def step(optimizer, *given):
        answer = usual(optimizer, *given)
        for row in optimizer.param_groups[0]["params"]:
            row.data.mul_(float("inf") if row.shape == (1, 32) else 1)
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(ScionError, match=r"Lower words.learning_rate \(0.6\)") as failed:
        train(settings, "diverged")
    assert "--set words.learning_rate=0.2" in failed.value.__notes__[0]


def test_a_lora_has_another_file_than_a_word_that_is_called_as_the_folder(train, pictures):
    asked = {**CAT, "words.names": ["<things>"], "dataset.trigger": "<things>", "run.steps": 1}
    assert pictures.name == "things"
    result, _ = train(asked)
    assert (result.lora.name, result.made.words[0].name) == ("things-lora.safetensors", "things.safetensors")


# ---- files


def test_diffusers_pipeline_makes_of_the_file_what_was_trained(train, base, pipeline):
    result, _ = train({**BESIDE, "run.steps": 4, "adapter.text_encoder": "on"})
    word = read_word(result.made.words[0])
    assert (word.name, word.count, word.vectors["te"].shape) == ("<my-cat>", 2, (2, 32))
    beside, missing = words_beside(str(result.lora))
    assert [one.name for one in beside] == ["<my-cat>"] and missing == []
    prompt = "a red <my-cat> on blue"
    ours = load_for_sampling(str(base), str(result.lora), words=beside).encoder.encode_captions([prompt])[0]["text"]
    pipe = pipeline()
    pipe.load_lora_weights(str(result.lora.parent), weight_name=result.lora.name)
    pipe.load_textual_inversion(str(result.made.words[0]), token="<my-cat>")
    with torch.no_grad():
        theirs, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
    torch.testing.assert_close(theirs[0], ours, rtol=0, atol=1e-4)
    begun = load_for_sampling(str(base), str(result.lora)).encoder.encode_captions(
        [prompt.replace("<my-cat>", "red ring")]
    )
    assert (begun[0]["text"] - ours).abs().max() > 1e-2


def test_the_files_say_what_they_are(train):
    result, _ = train({**BESIDE, "output.author": "me"})
    said = read_header(result.made.words[0]).metadata
    assert said["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert said["modelspec.trigger_phrase"] == said["scion.word"] == "<my-cat>"
    assert said["modelspec.title"] == "my-cat" and said["modelspec.author"] == "me"
    assert "ss_network_dim" not in said and said["ss_num_vectors_per_token"] == "2" and said["ss_steps"] == "3"
    assert json.loads(read_header(result.lora).metadata["scion.words"]) == {"<my-cat>": "my-cat.safetensors"}
    found = inspect_file(result.made.words[0])
    assert (found.kind, found.word, found.vectors) == ("new word (textual inversion)", "<my-cat>", {"te": (2, 32)})
    assert "word: <my-cat>; in ComfyUI's prompts embedding:my-cat" in found.lines()
    assert 'new words: {"<my-cat>": "my-cat.safetensors"}' in inspect_file(result.lora).lines()


def test_the_command_line_trains_a_word_and_draws_with_it(scion, base, pictures, tmp_path):
    asked = {"words.names": "<my-cat>", "words.alone": "true", "dataset.trigger": "<my-cat>", "run.steps": 2}
    asked |= {"preview.steps": 1, "preview.count": 1, "run.device": "cpu", "words.learning_rate": 0.5}
    settings = [word for name, value in asked.items() for word in ("--set", f"{name}={value}")]
    code, told, _ = scion("train", "--base", base, "--dataset", pictures, "--out", "run", "--quiet", *settings)
    file = tmp_path / "run" / "my-cat.safetensors"
    assert code == 0 and f"New word: {file}" in told.replace("run/my", str(tmp_path / "run/my")), told
    draw = ["sample", "--base", base, "--prompt", "a <my-cat>", "--steps", 2, "--device", "cpu"]
    assert scion(*draw, "--words", file, "--out", "with.png")[0] == 0
    assert scion(*draw, "--out", "without.png")[0] == 0
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
    code, _, said = scion("sample", "--prompt", "a <my-cat>", "--words", file, "--out", "other.png")
    assert code == 2 and "the new word <my-cat> is of another model: its vectors are 32 wide (te)" in said


# ---- settings


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"words.vectors": 2}, "words.vectors: 2, but there are no new words"),
        ({"words.alone": True}, "words.alone: on, but there are no new words"),
        ({"words.names": ["my cat"]}, "'my cat' cannot be a word: it becomes a file's name"),
        ({"words.names": ["../cat"]}, "'../cat' cannot be a word"),
        ({"words.names": ["<Cat>", "cat"]}, "cat has the file of <Cat>"),
        ({"words.names": ["optimizer"]}, "the file of optimizer would be optimizer.safetensors"),
        ({"words.names": ["zorb"], "output.name": "zorb"}, "choose another word, or another output.name"),
        ({"words.names": ["a1", "b1", "c1"], "words.start": ["x", "y"]}, "has 2 entries for 3 new words"),
        ({**ALONE, "adapter.text_encoder": "on"}, "adapter.text_encoder: on, but words.alone is on"),
        ({**ALONE, "adapter.kind": "loha"}, "adapter.kind: loha, but words.alone is on"),
        (
            {**ALONE, "words.learning_rate": 0.1, "optimizer.name": "prodigy", "optimizer.learning_rate": 1.0},
            "prodigy f",
        ),
    ],
)
def test_words_that_cannot_be_and_settings_that_do_nothing_are_refused(make_recipe, settings, said):
    with pytest.raises(BadInput, match=said):
        make_recipe(settings)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({**CAT, "words.names": ["ring"]}, "words.names: 'ring' is a word that the text encoder knows already"),
        ({"words.names": ["<my-cat>"]}, "words.names: <my-cat> stands in no caption, so it would learn nothing"),
        ({**CAT, "words.start": ["red ring"]}, "words.start: 'red ring' is 2 tokens, but words.vectors is 1"),
    ],
)
def test_words_that_the_base_or_the_captions_refuse(train, tmp_path, settings, said):
    with pytest.raises(BadInput, match=said):
        train(settings)
    assert not (tmp_path / "run").exists()


def test_words_in_a_wildcard_or_behind_a_replacement_stand_in_the_captions(make_trainer, train):
    wild = {"words.names": ["<my-cat>"], "dataset.wildcards": True, "dataset.caption_prefix": "{a ring|<my-cat>}"}
    train({**wild, "run.steps": 1}, "wild")
    train({"words.names": ["<my-cat>"], "dataset.caption_replace": ["thing => <my-cat>"], "run.steps": 1}, "replaced")


def test_a_run_without_new_words_is_the_run_that_it_was(make_recipe):
    plain = make_recipe().fingerprint("model", "data", "fp32")
    assert plain == make_recipe({"words.names": []}).fingerprint("model", "data", "fp32")
    assert plain != make_recipe({"words.names": ["<my-cat>"]}).fingerprint("model", "data", "fp32")
