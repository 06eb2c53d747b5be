"""The example workflows fit the nodes: what the page opens, and the same graph as a script queues it."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = ("MarkdownNote", "Note")
# The host's own nodes: sockets, widgets in the page's order, outputs. The page adds a widget to KSampler's seed.
CORE = {
    "CheckpointLoaderSimple": ({}, ["ckpt_name"], ["MODEL", "CLIP", "VAE"]),
    "CLIPTextEncode": ({"clip": "CLIP"}, ["text"], ["CONDITIONING"]),
    "DualCLIPLoader": ({}, ["clip_name1", "clip_name2", "type", "device"], ["CLIP"]),
    "EmptyLatentImage": ({}, ["width", "height", "batch_size"], ["LATENT"]),
    "EmptySD3LatentImage": ({}, ["width", "height", "batch_size"], ["LATENT"]),
    "FluxGuidance": ({"conditioning": "CONDITIONING"}, ["guidance"], ["CONDITIONING"]),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ["seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"],
        ["LATENT"],
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, [], ["IMAGE"]),
    "PreviewImage": ({"images": "IMAGE"}, [], ["IMAGE"]),
    "UNETLoader": ({}, ["unet_name", "weight_dtype"], ["MODEL"]),
    "VAELoader": ({}, ["vae_name"], ["VAE"]),
    "SaveImage": ({"images": "IMAGE"}, ["filename_prefix"], ["IMAGE"]),
}
SAMPLING = {
    "sampler_name": {"euler", "euler_ancestral", "dpmpp_2m", "ddim", "uni_pc"},
    "scheduler": {"normal", "karras", "simple", "exponential", "sgm_uniform"},
}


@pytest.fixture(params=NAMES)
def page(request):
    return json.loads((FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))


@pytest.fixture(params=NAMES)
def script(request):
    return json.loads((FOLDER / "api" / f"{request.param}.json").read_text(encoding="utf-8"))


@pytest.fixture(params=NAMES)
def both(request):
    return [json.loads((FOLDER / at / f"{request.param}.json").read_text(encoding="utf-8")) for at in ("", "api")]


@pytest.fixture
def kinds(pack):
    """Sockets by name, widgets in order and outputs of every node that an example may use."""
    found = dict(CORE)
    for name, node in pack.described().items():
        sockets = {one["name"]: one["kind"] for one in node["inputs"] if not one["widget"]}
        widgets = [one["name"] for one in node["inputs"] if one["widget"]]
        found[name] = sockets, widgets, [output[1] for output in node["outputs"]]
    return found


@pytest.fixture
def told(pack):
    """told(node, widget): what the schema says of it."""
    described = pack.described()
    return lambda node, name: next(one for one in described[node]["inputs"] if one["name"] == name)["told"]


def real_nodes(page):
    return {str(node["id"]): node for node in page["nodes"] if node["type"] not in NOTES}


def links_of(page):
    """(from, output, to, input's name) of each link."""
    nodes = real_nodes(page)
    named = {one["link"]: one["name"] for node in nodes.values() for one in node["inputs"] if one["link"] is not None}
    return {(str(source), out, str(target), named[link]) for link, source, out, target, _, _ in page["links"]}


def fits(kind, wanted):
    return kind in wanted.split(",")


def test_there_is_an_example_for_the_built_in_base_and_one_for_each_family():
    assert NAMES == [
        "Train a LoRA on Flux and sample with it",
        "Train a LoRA on HunyuanDiT and sample with it",
        "Train a LoRA on Kolors and sample with it",
        "Train a LoRA on an SD1.5 checkpoint and sample with it",
        "Train a LoRA on an SD3 checkpoint and sample with it",
        "Train a LoRA on an SDXL checkpoint and sample with it",
        "Train a LoRA with the built-in base",
    ]


def test_the_large_families_train_with_less_memory_and_are_drawn_at_their_own_size():
    """Kolors' nodes leave the size at 0, the base's own."""
    scripts = {name: json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}
    saving = {name: script["3"]["inputs"].get("gradient_checkpointing", False) for name, script in scripts.items()}
    assert [name for name in NAMES if saving[name]] == [
        name for name in NAMES if "SD1.5" not in name and "built-in" not in name
    ]
    sizes = {name: script.get("9", {}).get("inputs", {}).get("width", 0) for name, script in scripts.items()}
    assert list(sizes.values()) == [1024, 1024, 0, 512, 1024, 1024, 96]


def test_kolors_trains_and_draws_without_the_outputs_that_comfyui_cannot_use():
    script = json.loads((FOLDER / "api" / f"{NAMES[2]}.json").read_text(encoding="utf-8"))
    assert script["1"]["inputs"] == {
        "base": "Hugging Face id (below)",
        "hub_id": "Kwai-Kolors/Kolors-diffusers",
        "download": False,
    }
    links = [value for node in script.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert [output for source, output in links if source == "1"] == [0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_example_has_a_picture_for_the_list_of_templates(name):
    data = (FOLDER / f"{name}.jpg").read_bytes()
    assert data[:3] == b"\xff\xd8\xff" and len(data) > 1000


@pytest.mark.parametrize("name", NAMES)
def test_example_has_a_form_for_scripts(name):
    assert (FOLDER / "api" / f"{name}.json").is_file()


def test_there_is_no_form_for_scripts_without_an_example():
    assert sorted(path.stem for path in (FOLDER / "api").iterdir()) == NAMES


def test_script_names_nodes_and_inputs_that_exist(script, kinds):
    for node in script.values():
        sockets, widgets, _ = kinds[node["class_type"]]
        assert set(node["inputs"]) <= {*sockets, *widgets}


def test_script_gives_every_required_input(script, pack):
    described = pack.described()
    for node in script.values():
        if node["class_type"] in described:
            needed = {one["name"] for one in described[node["class_type"]]["inputs"] if not one["optional"]}
            assert needed <= set(node["inputs"]), node["class_type"]
        else:
            sockets, widgets, _ = CORE[node["class_type"]]
            needed = {*sockets, *widgets} - {"control_after_generate", "device"}
            assert needed == set(node["inputs"]), node["class_type"]


def test_script_links_outputs_to_inputs_of_their_kind(script, kinds):
    linked = 0
    for node in script.values():
        sockets, widgets, _ = kinds[node["class_type"]]
        for name, value in node["inputs"].items():
            assert isinstance(value, list) == (name in sockets), name
            if name in sockets:
                source, output = value
                assert fits(kinds[script[source]["class_type"]][2][output], sockets[name]), (node, name)
                linked += 1
    assert linked >= 7


def test_script_chooses_what_is_offered(script, told):
    for node in script.values():
        for name, value in node["inputs"].items():
            if node["class_type"].startswith("Scion") and not isinstance(value, list):
                assert value in told(node["class_type"], name).get("options", [value]), name
            elif name in SAMPLING:
                assert value in SAMPLING[name]


def test_script_passes_the_nodes_own_checks(script, pack):
    config = pack("nodes.train_config")
    for node in script.values():
        held = {name: None if isinstance(value, list) else value for name, value in node["inputs"].items()}
        if hasattr(pack.nodes.get(node["class_type"]), "validate_inputs"):
            assert pack.validate(node["class_type"], **held) is True
        elif node["class_type"] == "ScionLoRATrainConfig":
            assert pack("nodes.widgets").checked(config.WIDGETS, held).run.steps >= 300


def test_page_has_the_sockets_and_widgets_of_the_nodes(page, kinds):
    for node in real_nodes(page).values():
        sockets, widgets, outputs = kinds[node["type"]]
        shown = [one["name"] for one in node["inputs"] if "widget" in one]
        assert {one["name"]: one["type"] for one in node["inputs"] if "widget" not in one} == sockets, node["type"]
        assert shown == [name for name in widgets if name != "control_after_generate"], node["type"]
        assert [one["type"] for one in node["outputs"]] == outputs, node["type"]


def test_page_calls_outputs_as_the_nodes_do(page, pack):
    described = pack.described()
    for node in real_nodes(page).values():
        if node["type"] in described:
            assert [one["name"] for one in node["outputs"]] == [one[0] for one in described[node["type"]]["outputs"]]


def test_page_links_slots_that_exist_and_are_of_one_kind(page, kinds):
    nodes = real_nodes(page)
    for link, source, out, target, place, kind in page["links"]:
        output, taken = nodes[str(source)]["outputs"][out], nodes[str(target)]["inputs"][place]
        assert link in output["links"] and taken["link"] == link
        assert output["type"] == kinds[nodes[str(source)]["type"]][2][out] == kind
        assert fits(kind, kinds[nodes[str(target)]["type"]][0][taken["name"]])
    known = {link[0] for link in page["links"]}
    ends = {one["link"] for node in nodes.values() for one in node["inputs"]} - {None}
    begins = {link for node in nodes.values() for one in node["outputs"] for link in one["links"] or []}
    assert ends == begins == known and len(known) == len(page["links"])


def test_page_holds_a_value_for_every_widget_in_order(page, kinds, told):
    for node in real_nodes(page).values():
        widgets = kinds[node["type"]][1]
        values = node.get("widgets_values", [])
        assert len(values) == len(widgets), node["type"]
        for name, value in zip(widgets, values, strict=True):
            if not node["type"].startswith("Scion"):
                continue
            said = told(node["type"], name)
            assert value in said.get("options", [value]), (node["type"], name)
            if "min" in said:
                assert said["min"] <= value <= said["max"], (node["type"], name)
        named = node.get("widgets_values_named")
        assert named in (None, {n: v for n, v in zip(widgets, values, strict=True) if n in named}), node["type"]


def test_page_and_script_are_one_graph(both):
    page, script = both
    nodes = real_nodes(page)
    assert {number: node["type"] for number, node in nodes.items()} == {
        number: node["class_type"] for number, node in script.items()
    }
    assert links_of(page) == {
        (value[0], value[1], number, name)
        for number, node in script.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }


def test_page_and_script_hold_the_same_values_and_else_the_default(both, kinds, told):
    page, script = both
    for number, node in real_nodes(page).items():
        asked = script[number]["inputs"]
        for name, value in zip(kinds[node["type"]][1], node.get("widgets_values", []), strict=True):
            if name in asked:
                assert value == asked[name], (node["type"], name)
            elif node["type"].startswith("Scion"):
                assert value == told(node["type"], name)["default"], (node["type"], name)


def test_page_leaves_seeds_as_they_are(page, kinds):
    for node in real_nodes(page).values():
        held = dict(zip(kinds[node["type"]][1], node.get("widgets_values", []), strict=True))
        assert held.get("control_after_generate", "fixed") == "fixed"
