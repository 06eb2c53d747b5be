"""What the folder of a Stable Diffusion 1 base may hold, and how one that is torn or odd is refused."""

import json
import os
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from trainer_core.errors import BadInput
from trainer_core.families import registry


def test_the_old_names_of_the_vaes_attention_are_read_as_diffusers_reads_them(copied, model):
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    state = {}
    for key, tensor in load_file(path).items():
        for new, old in old_names.items():
            key = key.replace(new, old)
        state[key] = tensor
    assert sum(".attentions.0.query." in key for key in state) == 4
    save_file(state, path)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = AutoencoderKL.from_pretrained(copied / "vae").encode(pixels.permute(0, 3, 1, 2) * 2 - 1)
    found = registry.load(str(copied)).encoder
    latents = found.encode_pictures(pixels)
    torch.testing.assert_close(latents, reference.latent_dist.mean * 0.18215, rtol=0, atol=1e-6)
    assert found.identity == model.encoder.identity
    # Converters of that time left the matrices as the 1×1 convolutions that they had been.
    matrices = [key for key in state if ".attentions." in key and state[key].ndim == 2]
    save_file(state | {key: state[key][:, :, None, None].contiguous() for key in matrices}, path)
    assert torch.equal(registry.load(str(copied)).encoder.encode_pictures(pixels), latents)


def test_a_tokenizer_folder_without_a_vocabulary_is_refused(copied):
    words = copied / "tokenizer"
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (words / name).unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"lacks tokenizer/vocab.json \+ merges.txt"):
        registry.load(str(copied))
    (words / "vocab.json").write_text("{}")
    with pytest.raises(BadInput, match=r"lacks tokenizer/vocab.json \+ merges.txt"):
        registry.load(str(copied))


def test_a_torn_vocabulary_is_named(copied):
    words = copied / "tokenizer"
    (words / "tokenizer.json").unlink(missing_ok=True)
    (words / "vocab.json").write_text('{"a": ')
    (words / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(BadInput, match="tokenizer cannot be read as CLIP's tokenizer"):
        registry.load(str(copied))


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_has_embeddings_is_refused(copied):
    words = CLIPTokenizer.from_pretrained(copied / "tokenizer")
    words.add_tokens(["<heart>"])
    words.save_pretrained(copied / "tokenizer")
    with pytest.raises(BadInput, match="the tokenizer of .*copy has 609 tokens and its text encoder 608 embeddings"):
        registry.load(str(copied))


def test_a_tokenizer_of_another_model_is_refused_though_its_tokens_have_embeddings(clip_base, base, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(clip_base, folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(base / "tokenizer", folder / "tokenizer")
    with pytest.raises(BadInput, match="has 608 tokens and its text encoder 49408 embeddings"):
        registry.load(str(folder))


def test_an_embedding_table_padded_to_a_round_length_is_accepted(copied, model, predict, edit_json):
    path = copied / "text_encoder" / "model.safetensors"
    state = load_file(path)
    (name,) = [key for key in state if key.endswith("token_embedding.weight")]
    state[name] = torch.cat([state[name], torch.zeros(32, 32)])
    save_file(state, path)
    edit_json(copied / "text_encoder" / "config.json", vocab_size=640)
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


def test_a_tokenizer_without_a_length_takes_the_text_encoders(copied, model, predict):
    path = copied / "tokenizer" / "tokenizer_config.json"
    words = json.loads(path.read_text())
    del words["model_max_length"]
    path.write_text(json.dumps(words))
    found = registry.load(str(copied))
    assert found.encoder.texts["te"].tokenizer.model_max_length == 77
    assert torch.equal(predict(found), predict(model))


def test_a_folder_of_bin_files_is_read_without_pickle(copied, model, predict):
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = copied / part / f"{name}.safetensors"
        torch.save(load_file(path), path.with_name("pytorch_model.bin" if name == "model" else f"{name}.bin"))
        path.unlink()
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


@pytest.mark.parametrize("function", [os.mkdir, exec, shutil.copy])
def test_a_bin_file_that_would_run_code_is_refused(copied, tmp_path, function):
    class Trap:
        def __reduce__(self):
            return function, (str(tmp_path / "sprung"),)

    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Trap()}, copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match="diffusion_pytorch_model.bin holds objects other than tensors .*run code"):
        registry.load(str(copied))
    assert not (tmp_path / "sprung").exists()


def test_a_bin_file_that_holds_no_mapping_is_refused(copied):
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(torch.ones(3), copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match="diffusion_pytorch_model.bin"):
        registry.load(str(copied))


def test_shards_and_variants_are_found(copied, model, predict):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    names, index = sorted(state), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, copied / "unet" / file)
        index |= dict.fromkeys(part, file)
    path.unlink()
    (copied / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    vae = copied / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


@pytest.mark.parametrize("sharded", [True, False])
def test_the_index_of_a_variant_that_was_not_fetched_is_passed_over(copied, model, predict, sharded):
    """Stable Diffusion 3's folder has T5 in two precisions, each in shards with an index of its own."""
    unet = copied / "unet"
    if sharded:
        whole, shard = (unet / f"diffusion_pytorch_model{part}.safetensors" for part in ("", "-00001-of-00001"))
        index = {"weight_map": dict.fromkeys(load_file(whole), shard.name)}
        whole.rename(shard)
        (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


def test_a_missing_shard_is_named(copied):
    unet = copied / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="unet lacks diffusion_pytorch_model-00001-of-00001.safetensors, which .*index"):
        registry.load(str(copied))


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_of_shards_is_named(copied, text):
    (copied / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    with pytest.raises(BadInput, match=r"index.json cannot be read as weights .* is the download complete"):
        registry.load(str(copied))


def test_a_configuration_that_is_a_list_is_named(copied):
    (copied / "vae" / "config.json").write_text("[1]")
    with pytest.raises(BadInput, match="config.json is not readable JSON .holds list instead of an object"):
        registry.load(str(copied))


def test_all_missing_parts_of_a_folder_are_named_at_once(copied):
    shutil.rmtree(copied / "vae")
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(BadInput, match="lacks vae/config.json, tokenizer"):
        registry.load(str(copied))


def test_missing_unexpected_and_misshaped_weights_are_named(copied):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.bias"]
    state["conv_out.weight"] = state["conv_out.weight"][:, :16].contiguous()
    state["surplus"] = torch.ones(1)
    save_file(state, path)
    with pytest.raises(BadInput) as caught:
        registry.load(str(copied))
    said = str(caught.value)
    assert "the unet of" in said and "1 missing (conv_in.bias)" in said and "1 unexpected (surplus)" in said
    assert "conv_out.weight is [4, 16, 3, 3] instead of [4, 32, 3, 3]" in said


def test_a_torn_weights_file_is_named(copied):
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"vae.diffusion_pytorch_model.safetensors cannot be read as weights"):
        registry.load(str(copied))


def test_a_prediction_that_cannot_be_trained_is_refused(changed_base):
    with pytest.raises(BadInput, match="prediction_type 'sample' is not one that trains"):
        registry.load(str(changed_base(prediction_type="sample")))
