"""SaveLoRA writes into the host's folder of LoRAs, never the same one twice and never over another unasked."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

NODE = "ScionSaveLoRA"


def some(value=1.0):
    return {
        "lora_unet_x.lora_up.weight": torch.full((3, 2), value),
        "lora_unet_x.lora_down.weight": torch.ones(2, 4, dtype=torch.float16),
        "lora_unet_x.alpha": torch.tensor(2.0),
    }


@pytest.fixture
def save(pack):
    def run(lora, **held):
        made = pack.run(NODE, lora=lora, **held)
        return made.args[0], made.ui["text"][0]

    return run


@pytest.fixture
def files(host):
    """The files in the folder of LoRAs, by their paths below it."""
    folder = host.base / "models/loras"
    return lambda: sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_lora_is_written_under_its_name_and_listed_at_once(save, files, host):
    assert host.folders.get_filename_list("loras") == []
    assert save(some(), name="scion/mine") == ("scion/mine.safetensors", "Saved: scion/mine.safetensors")
    assert files() == host.folders.get_filename_list("loras") == ["scion/mine.safetensors"]


def test_tensors_come_back_as_they_were(save, host):
    save(some(), name="mine")
    read = load_file(host.base / "models/loras/mine.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in read.items()} == {
        name: (t.dtype, t.shape) for name, t in some().items()
    }
    assert all(torch.equal(read[name], tensor) for name, tensor in some().items())


def test_lora_of_other_nodes_is_written_without_metadata(save, host):
    save(some(), name="mine")
    with safe_open(host.base / "models/loras/mine.safetensors", "pt") as file:
        assert not file.metadata()


def test_lora_of_ours_keeps_its_metadata_and_its_name(save, files, pack, host):
    lora = pack("nodes.edges").LoraModel(some(), {"ss_network_dim": "2"}, "hearts")
    assert save(lora)[0] == "hearts.safetensors"
    with safe_open(host.base / "models/loras/hearts.safetensors", "pt") as file:
        assert file.metadata() == {"ss_network_dim": "2"}


def test_lora_without_any_name_is_called_lora(save, files):
    save(some())
    assert files() == ["lora.safetensors"]


@pytest.mark.parametrize("existing", ["add a number", "overwrite", "error"])
def test_the_same_lora_twice_is_one_file(save, files, host, existing):
    save(some(), name="mine")
    written = (host.base / "models/loras/mine.safetensors").stat().st_mtime_ns
    said = save(dict(reversed(some().items())), name="mine", existing=existing)
    assert said == ("mine.safetensors", "Already there: mine.safetensors")
    assert files() == ["mine.safetensors"]
    assert (host.base / "models/loras/mine.safetensors").stat().st_mtime_ns == written


def test_another_lora_gets_a_number(save, files):
    for value in (1.0, 2.0, 3.0, 2.0):
        last = save(some(value), name="sub/mine.v1")
    assert files() == ["sub/mine.v1-2.safetensors", "sub/mine.v1-3.safetensors", "sub/mine.v1.safetensors"]
    assert last == ("sub/mine.v1-2.safetensors", "Already there: sub/mine.v1-2.safetensors")


def test_another_lora_overwrites_where_that_is_asked(save, files, host):
    save(some(1.0), name="mine")
    assert save(some(2.0), name="mine", existing="overwrite")[1] == "Saved: mine.safetensors"
    assert files() == ["mine.safetensors"]
    assert float(load_file(host.base / "models/loras/mine.safetensors")["lora_unet_x.lora_up.weight"].max()) == 2.0


def test_another_lora_is_refused_where_that_is_asked(save, files, pack, host):
    save(some(1.0), name="mine")
    with pytest.raises(pack.BadInput) as refused:
        save(some(2.0), name="mine", existing="error")
    path = host.base / "models/loras/mine.safetensors"
    assert str(refused.value) == (
        f"name: {path} is another LoRA already; choose another name, or set existing to 'add a number'"
    )
    assert float(load_file(path)["lora_unet_x.lora_up.weight"].max()) == 1.0


def test_file_that_is_no_lora_is_kept(save, files, host):
    (host.base / "models/loras/mine.safetensors").write_bytes(b"something else")
    assert save(some(), name="mine")[0] == "mine-2.safetensors"
    assert (host.base / "models/loras/mine.safetensors").read_bytes() == b"something else"


@pytest.mark.parametrize("dialect", ["kohya", "kohya-ldm", "comfyui", "diffusers"])
def test_lora_of_an_unknown_model_is_not_named_anew(save, files, pack, dialect):
    with pytest.raises(pack.BadInput, match=f"^dialect: '{dialect}', but only a LoRA .* choose 'as it is'$"):
        save(some(), dialect=dialect)
    assert files() == []


def test_name_that_leads_out_is_refused_when_it_comes_by_a_link(save, files, pack, tmp_path):
    with pytest.raises(pack.BadInput, match=r"^name: '\.\./mine' cannot be a file's name"):
        save(some(), name="../mine")
    assert files() == [] and not list(tmp_path.rglob("mine*"))


def test_lora_is_named_anew_for_the_model_it_was_trained_on(save, pack, host):
    lora_file = pack("trainer_core.lora_file.lora")
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    target = lora_file.Target({"unet": {path: (8, 8)}}, None)
    pair = lora_file.LoraPair(torch.ones(2, 8), torch.ones(8, 2), 2.0)
    dialects = pack("trainer_core.lora_file.dialects")
    tensors = dialects.lora_to_tensors({"unet": {path: pair}}, "kohya", target, torch.float32)
    lora = pack("nodes.edges").LoraModel(tensors, {"note": "kept"}, "hearts", target)
    save(lora, name="mine", dialect="diffusers")
    read = load_file(host.base / "models/loras/mine.safetensors")
    assert sorted(read) == [f"unet.{path}.lora_A.weight", f"unet.{path}.lora_B.weight"]
    with safe_open(host.base / "models/loras/mine.safetensors", "pt") as file:
        assert file.metadata()["note"] == "kept"


def test_dora_named_anew_keeps_the_precision_of_its_matrices_and_scales(save, pack, host):
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    target = pack("trainer_core.lora_file.lora").Target({"unet": {path: (8, 8)}}, None)
    halves = torch.ones(2, 8), torch.ones(8, 2)
    held = pack("trainer_core.lora_file.dora").DoraPair(*halves, 2.0, torch.full((8, 1), 1.0001))
    dialects = pack("trainer_core.lora_file.dialects")
    tensors = dialects.lora_to_tensors({"unet": {path: held}}, "kohya", target, torch.float16)
    # As safetensors gives them: the scale comes before the matrices.
    lora = pack("nodes.edges").LoraModel(dict(sorted(tensors.items())), {}, "hearts", target)
    save(lora, name="mine", dialect="kohya")
    read = load_file(host.base / "models/loras/mine.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensors[key]) for key in read)
    assert {tensor.dtype for key, tensor in read.items() if "lora_" in key.split(".")[1]} == {torch.float16}
    with pytest.raises(pack.BadInput, match="'diffusers' has no keys for DoRA; choose one of kohya"):
        save(lora, name="mine", dialect="diffusers")


def test_edge_is_a_dict_that_any_node_can_save(pack, tmp_path):
    lora = pack("nodes.edges").LoraModel(some(), {"a": "b"}, "hearts")
    save_file(lora, tmp_path / "mine.safetensors")
    assert set(load_file(tmp_path / "mine.safetensors")) == set(some())
    assert isinstance(lora, dict) and (lora.metadata, lora.name, lora.target) == ({"a": "b"}, "hearts", None)


def test_digest_is_equal_for_equal_tensors_whatever_their_order_and_layout(pack):
    digest = pack("nodes.edges").digest_of
    turned = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    again = {"b": torch.ones(1), "a": torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]).t()}
    assert digest(turned) == digest(again) == digest(pack("nodes.edges").LoraModel(again))
    assert len(digest(turned)) == 64


@pytest.mark.parametrize(
    "other",
    [{"b": torch.ones(2, 3)}, {"a": torch.ones(3, 2)}, {"a": torch.ones(2, 3).half()}, {"a": torch.zeros(2, 3)}, {}],
    ids=["name", "shape", "precision", "value", "empty"],
)
def test_digest_differs_with(pack, other):
    digest = pack("nodes.edges").digest_of
    assert digest({"a": torch.ones(2, 3)}) != digest(other)


# ---- new words


def cat(pack, value=1.0):
    word = pack("trainer_core.lora_file.words").Word
    return word("<my-cat>", {"te": torch.full((2, 4), value)}, {"note": "kept"})


@pytest.fixture
def embeddings(host):
    """The files in the folder of embeddings."""
    return lambda: sorted(path.name for path in (host.base / "models/embeddings").iterdir())


def test_new_words_go_beside_the_embeddings_under_names_that_prompts_can_say(save, files, embeddings, pack, host):
    lora = pack("nodes.edges").LoraModel(some(), {}, "hearts", words=[cat(pack)])
    assert save(lora) == ("hearts.safetensors", "Saved: hearts.safetensors\nNew words: embedding:my-cat")
    assert (files(), embeddings()) == (["hearts.safetensors"], ["my-cat.safetensors"])
    assert host.folders.get_filename_list("embeddings") == ["my-cat.safetensors"]
    with safe_open(host.base / "models/embeddings/my-cat.safetensors", "pt") as file:
        assert file.metadata() == {"note": "kept"} and file.get_tensor("emb_params").tolist() == [[1.0] * 4] * 2


def test_new_words_alone_make_no_lora_and_another_of_that_name_gets_a_number(save, files, embeddings, pack):
    model = pack("nodes.edges").LoraModel
    for value, called in ((1.0, "my-cat"), (2.0, "my-cat-2"), (1.0, "my-cat")):
        listed, said = save(model({}, words=[cat(pack, value)]))
        assert (listed.message, said) == (None, f"New words: embedding:{called}")
    assert (files(), embeddings()) == ([], ["my-cat-2.safetensors", "my-cat.safetensors"])
    with pytest.raises(pack.BadInput, match="is another embedding already"):
        save(model({}, words=[cat(pack, 3.0)]), existing="error")


# ---- a decorator


def test_a_decorator_is_saved_beside_the_lora_under_the_name_that_the_lora_has_got(save, files, pack, host):
    tokens = pack("trainer_core.lora_file.decorator").DecoratorTokens(torch.ones(2, 4), "run", {"note": "kept"})
    save(some(1.0), name="sub/mine")
    listed, said = save(some(2.0), name="sub/mine", decorator=tokens)
    assert listed == "sub/mine-2.safetensors"
    assert said == "Saved: sub/mine-2.safetensors\nDecorator saved: sub/mine-2.decorator.safetensors"
    assert "sub/mine-2.decorator.safetensors" in host.folders.get_filename_list("loras")
    with safe_open(host.base / "models/loras/sub/mine-2.decorator.safetensors", "pt") as file:
        assert file.metadata() == {"note": "kept"} and file.get_tensor("weight").tolist() == [[1.0] * 4] * 2
    again = save(some(2.0), name="sub/mine", decorator=tokens)[1]
    assert "Decorator already there: sub/mine-2.decorator.safetensors" in again and len(files()) == 3


def test_a_decorator_alone_makes_no_lora(save, files, pack):
    tokens = pack("trainer_core.lora_file.decorator").DecoratorTokens(torch.ones(2, 4), "things")
    empty = pack("nodes.edges").LoraModel({})
    listed, said = save(empty, decorator=tokens)
    assert (listed.message, said) == (None, "Decorator saved: things.decorator.safetensors")
    assert files() == ["things.decorator.safetensors"]
    assert save(empty)[1] == "Nothing to save: no LoRA was trained"
