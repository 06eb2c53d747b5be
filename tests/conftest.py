"""A random base of Stable Diffusion 1's shape that loads in moments, a dataset of uneven buckets, and short recipes."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# Two processes of tests share the cores, and threads that spin while they wait starve the other one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.util
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    KolorsPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer_core import cli, recipe
from trainer_core.assets.build import tokenizer, unet
from trainer_core.engine import run
from trainer_core.engine.events import Warned
from trainer_core.families import registry
from trainer_core.families.kolors import SCHEDULE as KOLORS
from trainer_core.families.stable_diffusion import SCHEDULE

torch.set_num_threads(1)

WIDTH = 32


def beside(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tests_{name}", Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hunyuan_models = beside("hunyuan_models")


def random_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )


def random_vae():
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        sample_size=64,
    )


def random_text_encoder(words):
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        projection_dim=WIDTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model = CLIPTextModel(config)
    # transformers draws embeddings so small that every caption would mean the same.
    for name, parameter in model.named_parameters():
        if "embedding" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    return model


def save_base(folder, words):
    """A diffusers folder of random parts over a tokenizer."""
    pipeline = StableDiffusionPipeline(
        vae=random_vae(),
        text_encoder=random_text_encoder(words),
        tokenizer=words,
        unet=random_unet(),
        scheduler=unet.noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_random_base():
    return save_base


def sdxl_unet(**changes):
    """Shaped as SDXL's: no attention in the first level, deeper transformers below, 64 channels a head."""
    torch.manual_seed(10)
    settings = {
        "sample_size": 128,
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 96,
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 48,
    }
    return UNet2DConditionModel(**settings | changes)


def clip_encoder(module_class, words, seed, width, **settings):
    torch.manual_seed(seed)
    module = module_class(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=1,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
            **settings,
        )
    )
    for name, parameter in module.named_parameters():
        if "embedding" in name:
            torch.nn.init.normal_(parameter, std=1.0)
        elif "norm" in name:
            # Else a missing norm would not show: transformers begins with ones and zeros.
            torch.nn.init.normal_(parameter, mean=0.7, std=0.2)
    return module


def save_sdxl(folder, words, padded_otherwise, projection=48):
    """A diffusers folder of random parts over two tokenizers; all is made for 1,024 pixels."""
    second = {"hidden_act": "gelu", "projection_dim": projection}
    vae = random_vae()
    vae.register_to_config(scaling_factor=0.13025)
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=clip_encoder(CLIPTextModel, words, 11, 32),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, padded_otherwise, 12, 64, **second),
        tokenizer=words,
        tokenizer_2=padded_otherwise,
        unet=sdxl_unet(projection_class_embeddings_input_dim=6 * 256 + projection),
        scheduler=EulerDiscreteScheduler.from_config(SCHEDULE),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_random_sdxl():
    return save_sdxl


@pytest.fixture(scope="session")
def glm_tokenizer(tmp_path_factory):
    """The folder of a ChatGLM tokenizer of a few hundred pieces."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="Kolors' tokenizer is read with sentencepiece")
    folder = tmp_path_factory.mktemp("glm")
    text = folder / "text.txt"
    text.write_text("a small red ring on a blue background\n一只红色的猫在蓝色的背景上\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=64, hard_vocab_limit=False, minloglevel=2
    )
    return folder


def random_glm():
    settings = {"multi_query_attention": True, "multi_query_group_num": 2, "add_qkv_bias": True, "original_rope": True}
    sizes = {"num_layers": 3, "padded_vocab_size": 80, "hidden_size": 32, "ffn_hidden_size": 48, "kv_channels": 8}
    config = ChatGLMConfig(**sizes, **settings, num_attention_heads=4, seq_length=300, use_cache=True)
    torch.manual_seed(13)
    module = ChatGLMModel(config)
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, mean=0.8 if "norm" in name else 0.0, std=1.0 if "embed" in name else 0.2)
    return module


@pytest.fixture(scope="session")
def sdxl_base(tmp_path_factory, base, save_random_sdxl):
    """The folder of a random Stable Diffusion XL, whose second tokenizer pads with its first token, "!"."""
    folder = tmp_path_factory.mktemp("sdxl")
    first, second = (CLIPTokenizer.from_pretrained(base / "tokenizer") for _ in range(2))
    second.pad_token = "!"
    return save_random_sdxl(folder / "base", first, second)


@pytest.fixture(scope="session")
def kolors_base(tmp_path_factory, glm_tokenizer):
    """The folder of a random Kolors; nobody writes in it."""
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    folder = tmp_path_factory.mktemp("kolors") / "base"
    glm = 6 * 256 + 32
    unet = sdxl_unet(encoder_hid_dim=32, encoder_hid_dim_type="text_proj", projection_class_embeddings_input_dim=glm)
    KolorsPipeline(
        vae=random_vae(),
        text_encoder=random_glm(),
        tokenizer=ChatGLMTokenizer(str(glm_tokenizer / "tokenizer.model")),
        unet=unet,
        scheduler=EulerDiscreteScheduler.from_config(KOLORS),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def hunyuan_base(tmp_path_factory):
    """The folder of a random HunyuanDiT 1.2, the files of its vocabularies beside its parts; nobody writes in it."""
    return hunyuan_models.save(tmp_path_factory.mktemp("hunyuan") / "1.2", random_vae(), style=False)


@pytest.fixture(scope="session")
def older_hunyuan_base(tmp_path_factory):
    """The same of version 1.1, which is told a style and sizes."""
    return hunyuan_models.save(tmp_path_factory.mktemp("hunyuan") / "1.1", random_vae(), style=True)


@pytest.fixture(scope="session")
def save_random_hunyuan():
    """save(folder, style, vocabulary): a base of either version over BERT's vocabulary in a file; its folder."""
    return lambda folder, style, vocabulary: hunyuan_models.save(folder, random_vae(), style, vocabulary)


@pytest.fixture(scope="session")
def random_hunyuan():
    """A HunyuanDiT's transformer with random weights; keywords change its configuration."""
    return hunyuan_models.transformer


@pytest.fixture(scope="session")
def in_hunyuan_names():
    """(a HunyuanDiT's state, its config) -> the same under its original names."""
    return hunyuan_models.in_original_names


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder of a base: 64×64 pixels, latents of 8×8, half a million weights in the UNet; nobody writes in it."""
    folder = tmp_path_factory.mktemp("base")
    return save_base(folder / "base", tokenizer.build(folder / "words"))


@pytest.fixture
def model(base):
    """The base, freshly loaded, in fp32."""
    return registry.load(str(base))


@pytest.fixture
def changed_base(base, tmp_path):
    """A copy of the base whose scheduler configuration differs."""

    def change(**schedule):
        folder = tmp_path / "changed-base"
        shutil.copytree(base, folder)
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | schedule))
        return folder

    return change


@pytest.fixture
def pipeline(base):
    """diffusers' own pipeline over the base, silent."""

    def load(folder=base):
        pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Five pictures for three buckets at 64 pixels (three square, one lying, one standing), captioned by tags."""
    folder = tmp_path_factory.mktemp("pictures") / "things"
    folder.mkdir()
    for number, (width, height) in enumerate([(64, 64), (96, 48), (70, 72), (48, 96), (80, 80)]):
        x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 40, height))
        colour = np.array([50 * number, 200 - 40 * number, 90])
        pixels = np.clip(colour + x[..., None] - y[..., None], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"thing {number}, red, big, old", encoding="utf-8")
    return folder


@pytest.fixture
def make_recipe(base, pictures):
    """A short run on the base and the pictures; settings by dotted name change it."""

    def make(changes=(), **more):
        values = {
            "base": str(base),
            "dataset.path": str(pictures),
            "adapter.rank": 4,
            "optimizer.learning_rate": 1e-3,
            "run.steps": 3,
            "run.device": "cpu",
            "run.batch_size": 2,
            "preview.steps": 2,
            "preview.count": 1,
            "output.dtype": "fp32",
            **dict(changes),
            **more,
        }
        nested = {}
        for name, value in values.items():
            part, _, key = name.rpartition(".")
            (nested.setdefault(part, {}) if part else nested)[key] = value
        return recipe.from_dict(nested)

    return make


class Recorder:
    """An observer that keeps what it hears, and asks for a stop once a step is done."""

    def __init__(self, stop_after=None):
        self.events, self.stop_after, self.step = [], stop_after, 0

    def on(self, event):
        self.events.append(event)
        self.step = getattr(event, "last", self.step)

    def should_stop(self):
        return self.stop_after is not None and self.step >= self.stop_after

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def train(tmp_path, make_recipe):
    """Trains a recipe (or the short one with changes) into a folder under the test's; returns result and recorder."""

    def go(changes=(), folder: str | Path = "run", stop_after=None, warnings=False, observers=(), **given):
        recorder = Recorder(stop_after)
        asked = changes if isinstance(changes, recipe.Recipe) else make_recipe(changes)
        result = run.train(asked, tmp_path / folder, [*observers, recorder], recorder.should_stop, **given)
        # A preview or checkpoint that fails is a warning only.
        assert warnings or not recorder.of(Warned), recorder.of(Warned)
        return result, recorder

    return go


def snapshot_of(module):
    """All that a visitor could leave behind in a module: bits of weights, flags, the modules themselves, attributes."""
    ignored = {"_parameters", "_buffers", "_modules", "training"}
    found = {}
    for path, part in module.named_modules():
        attributes = sorted(name for name in vars(part) if name not in ignored)
        found[path] = (id(part), type(part), part.training, attributes, list(part._forward_hooks))
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                bits = tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
                found[f"{path}.{name}"] = (id(tensor), tensor.requires_grad, tensor.grad is None, tensor.dtype, bits)
    return found


@pytest.fixture(scope="session")
def snapshot():
    return snapshot_of


@pytest.fixture(scope="module")
def every_core():
    """For tests that sample hundreds of pictures, the only long work of the suite."""
    before = torch.get_num_threads()
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def scion(capsys, tmp_path, monkeypatch):
    """Runs a command in this process, in an empty folder; gives (exit code, output, errors)."""
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)

    def go(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        told = capsys.readouterr()
        return code, told.out, told.err

    yield go
    signal.signal(signal.SIGINT, handler)
