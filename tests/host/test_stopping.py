"""A run in the graph that is cancelled, killed or fails keeps what is done, and goes on as if nothing had been."""

import os
import shutil

import pytest
import torch
from PIL import Image

STEPS = 16
MANY = 40
EVERY = {
    "steps": STEPS,
    "seed": 91,
    "checkpoint_every": 8,
    "validate_every": 4,
    "preview_every": 4,
    "preview_steps": 12,
    "preview_prompts": "a red ring",
}
HELD_OUT = {"holdout": 1}


def step(number):
    """Heard when that step is done."""

    def heard(message):
        said = message.data
        return message.type == "scion.step" and said["first"] + len(said["losses"]) > number

    return heard


def event(kind, number):
    return lambda message: message.type == f"scion.{kind}" and message.data["step"] == number


def working(what):
    return lambda message: message.type == "scion.working" and message.data["what"] == what


MOMENTS = {
    "scanning": lambda message: message.type == "scion.checking",
    "encoding": working("encoding"),
    "before-the-first-step": event("started", 0),
    "first-step": step(1),
    "step-3": step(3),
    "step-6": step(6),
    "validation-without-checkpoint": step(4),
    "checkpoint-after-validation": event("validation", 8),
    "preview": event("validation", 4),
    "preview-after-checkpoint": event("checkpoint", 8),
    "step-10": step(10),
    "step-13": step(13),
    "near-the-end": step(STEPS - 1),
    "last-look": step(STEPS),
}
"""When to cancel. Validation follows each fourth step, then comes the eighth's checkpoint, and last the preview."""
BEFORE_TRAINING = ("scanning", "encoding")


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def steps_done(folder):
    """How many steps a run's history has."""
    path = folder / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count('"loss"') if path.exists() else 0


def last_checkpoint(run):
    return max((int(path.name.removeprefix("step-")) for path in run.folder.glob("checkpoints/step-*")), default=0)


def started_at(messages):
    return [message.data["step"] for message in messages if message.type == "scion.started"]


@pytest.fixture(scope="module")
def prompt(graph):
    """The run of these tests. By another name it is the same run, but not what the host has cached."""

    def build(name):
        return graph.training(config=EVERY, dataset=HELD_OUT, train={"name": name})

    return build


@pytest.fixture(scope="module")
def uninterrupted(module_host, graph, prompt):
    """The tensors of the run when nothing happens to it; its folder is gone again."""
    run = graph.run_of(module_host, module_host.run(prompt("whole")))
    assert run.state["step"] == STEPS
    tensors = run.tensors
    shutil.rmtree(run.folder)
    return tensors


@pytest.fixture
def cleared(module_host, uninterrupted):
    """No runs, and nothing is encoded."""

    def clear():
        shutil.rmtree(module_host.base / "output" / "scion", ignore_errors=True)
        shutil.rmtree(module_host.base / "user" / "scion" / "encoded", ignore_errors=True)

    clear()
    yield
    clear()


@pytest.fixture
def many(module_host):
    """Fills the dataset with pictures that take a while to check, and empties it of them."""
    folder = module_host.base / "input" / "things"

    def fill():
        # Small files that take long to decode.
        Image.new("RGB", (3000, 3000), "red").save(folder / "many-0.png", compress_level=1)
        for number in range(MANY):
            if number:
                shutil.copyfile(folder / "many-0.png", folder / f"many-{number}.png")
            (folder / f"many-{number}.txt").write_text("much red", encoding="utf-8")

    def empty():
        for path in folder.glob("many-*"):
            path.unlink()

    yield fill, empty
    empty()


def cancel(host, prompt, moment, timeout=60):
    """Queues, and cancels at the moment: how it ended, its messages, and how many steps were done by then."""
    with host.listen() as listener:
        prompt_id = host.queue(prompt, listener.client_id)
        listener.wait_for(moment, timeout)
        host.interrupt(prompt_id)
        # The host's answer to the request is behind us: what it does from here on it does though it was cancelled.
        done = sum(steps_done(path.parent) for path in runs_of(host).glob("*/run.json"))
        end, messages = listener.until_done(prompt_id, timeout)
    return end, messages, done


def runs_of(host):
    return host.base / "output" / "scion"


def only_run(host, graph):
    [state] = runs_of(host).glob("*/run.json")
    return graph.Run(state.parent)


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_run_goes_on_where_it_was_and_ends_the_same(
    module_host, graph, prompt, uninterrupted, cleared, many, moment
):
    fill, empty = many
    if moment == "scanning":
        fill()
    end, messages, done = cancel(module_host, prompt(moment), MOMENTS[moment])
    empty()
    assert end.type == "execution_interrupted"
    assert end.data["node_id"] == ("dataset" if moment == "scanning" else "train")
    saved = 0
    if moment not in BEFORE_TRAINING:
        run = only_run(module_host, graph)
        saved = run.state["step"]
        assert done <= saved <= done + 1
        assert steps_done(run.folder) == saved
        assert last_checkpoint(run) == saved

    result = module_host.run(prompt(moment))
    # Also where all steps were done: the last look is then made up for.
    assert started_at(result.messages) == [saved]
    finished = graph.run_of(module_host, result)
    assert finished.folder == only_run(module_host, graph).folder
    assert (finished.state["status"], len(finished.losses)) == ("finished", STEPS)
    assert same(finished.tensors, uninterrupted)


@pytest.mark.parametrize("cache", ["disk", "off"])
def test_run_that_is_cancelled_again_and_again_ends_the_same(module_host, graph, prompt, uninterrupted, cleared, cache):
    """Without a cache the host's CLIP and VAE encode in each step: there cancelling must not tear the run, either."""
    asked, saved = graph.training(config=EVERY, dataset={**HELD_OUT, "cache": cache}, train={"name": cache}), 0
    for number in (2, 5, 7, 10):
        end, messages, done = cancel(module_host, asked, step(number))
        assert (end.type, started_at(messages)) == ("execution_interrupted", [saved])
        run = only_run(module_host, graph)
        [told] = [message.data for message in messages if message.type == "scion.finished"]
        assert (told["status"], told["step"], told["total"]) == ("stopped", run.state["step"], STEPS)
        assert told["lines"][-1] == "Queue the workflow again to go on."
        assert run.state["status"] == "stopped"
        assert run.file.name == told["lora"] == f"{cache}.safetensors"
        assert not same(run.tensors, uninterrupted)
        assert number <= done <= run.state["step"] <= done + 1
        saved = run.state["step"]
    result = module_host.run(asked)
    assert started_at(result.messages) == [saved]
    assert same(graph.run_of(module_host, result).tensors, uninterrupted)


def test_cancelled_preview_is_not_shown(module_host, graph, uninterrupted, cleared):
    asked = graph.training(config={**EVERY, "preview_steps": 400}, dataset=HELD_OUT)
    _, messages, _ = cancel(module_host, asked, MOMENTS["preview"])
    assert not [message for message in messages if message.type == "scion.preview"]
    assert not list(only_run(module_host, graph).folder.glob("previews/*"))


def test_cancelled_scan_leaves_no_run(module_host, prompt, uninterrupted, cleared, many):
    fill, _ = many
    fill()
    _, messages, _ = cancel(module_host, prompt("unscanned"), MOMENTS["scanning"])
    assert not [message for message in messages if message.type.startswith("scion.")]
    counted = [message.data for message in messages if message.type == "progress" and message.data["node"] == "dataset"]
    assert counted[-1]["value"] < counted[-1]["max"] == MANY + 5
    assert not runs_of(module_host).exists()


def test_what_is_encoded_when_a_run_is_cancelled_is_kept(module_host, prompt, uninterrupted, cleared):
    cancel(module_host, prompt("encoded"), MOMENTS["encoding"])
    encoded = {path: path.stat().st_ino for path in module_host.base.glob("user/scion/encoded/*/*.safetensors")}
    assert encoded
    assert module_host.run(prompt("encoded")).status == "success"
    assert all(path.stat().st_ino == number for path, number in encoded.items())


def test_other_prompt_runs_after_a_cancelled_one(module_host, graph, prompt, uninterrupted, cleared):
    cancel(module_host, prompt("cancelled"), step(3))
    other = graph.run_of(module_host, module_host.run(graph.training(config={"seed": 92})))
    assert other.state["status"] == "finished"


def test_killed_run_goes_on_from_its_checkpoint_and_ends_the_same(module_host, graph, prompt, uninterrupted, cleared):
    # Nothing but the folder is left of it: the host's cache dies with it.
    with module_host.listen() as listener:
        module_host.queue(prompt("killed"), listener.client_id)
        listener.wait_for(step(10))
        module_host.kill()
    run = only_run(module_host, graph)
    assert (run.state["status"], run.state["step"], last_checkpoint(run)) == ("unfinished", 8, 8)
    assert steps_done(run.folder) >= 10
    result = module_host.restart().run(prompt("killed"))
    assert started_at(result.messages) == [8]
    finished = graph.run_of(module_host, result)
    assert finished.folder == run.folder
    assert len(finished.losses) == STEPS
    assert same(finished.tensors, uninterrupted)


def test_picture_that_changes_after_the_scan_is_named(module_host, graph, uninterrupted, cleared):
    folder = module_host.base / "input" / "changing"
    shutil.copytree(module_host.base / "input" / "things", folder)
    picture = folder / "4.bmp"
    Image.open(folder / "4.png").convert("RGB").save(picture)
    (folder / "4.png").unlink()
    prompt = graph.training(folder="changing", config={"seed": 93})
    sheet = graph.node("PreviewImage", images=("dataset", 1))
    assert module_host.run({"dataset": prompt["dataset"], "sheet": sheet}).status == "success"
    # By size and time it is the same file, so the host keeps the scan.
    before = picture.stat()
    Image.new("RGB", (80, 80), "red").save(picture)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert picture.stat().st_size == before.st_size

    result = module_host.run(prompt)
    assert (result.status, result.error["node_id"]) == ("error", "train")
    assert "4.bmp" in result.error["exception_message"]
    assert "changed" in result.error["exception_message"]
    shutil.rmtree(folder)
    assert module_host.run(graph.training(config={"seed": 93})).status == "success"


@pytest.mark.parametrize(
    ("node", "kind", "value"), [("rank", "PrimitiveInt", 0), ("learning_rate", "PrimitiveFloat", -1.0)]
)
def test_value_by_link_that_is_out_of_range_is_named(module_host, graph, node, kind, value):
    prompt = graph.training(config={node: ("number", 0)}, number=graph.node(kind, value=value))
    result = module_host.run(prompt)
    assert (result.status, result.error["node_id"]) == ("error", "config")
    assert result.error["exception_message"].startswith(f"{node}: {value:g}")
    prompt["number"]["inputs"]["value"] = 2 if node == "rank" else 1e-3
    assert module_host.run(prompt).status == "success"


def test_run_that_fails_says_what_is_kept_and_goes_on_from_there(module_host, graph, uninterrupted, cleared):
    """Without a cache pictures are read in each step: these are gone in the midst of the run, and come back."""
    prompt = graph.training(config=EVERY, dataset={**HELD_OUT, "cache": "off"}, train={"name": "failing"})
    folder = module_host.base / "input" / "things"
    aside = folder.with_name(".aside")
    with module_host.listen() as listener:
        prompt_id = module_host.queue(prompt, listener.client_id)
        listener.wait_for(step(5))
        folder.rename(aside)
        try:
            end, _ = listener.until_done(prompt_id)
        finally:
            aside.rename(folder)
    run = only_run(module_host, graph)
    saved = run.state["step"]
    assert saved >= 5
    assert last_checkpoint(run) == saved
    assert (end.type, end.data["node_id"]) == ("execution_error", "train")
    assert ".png" in end.data["exception_message"]
    assert f"Kept: step {saved}. Queue the workflow again to go on." in end.data["exception_message"]

    result = module_host.run(prompt)
    assert started_at(result.messages) == [saved]
    assert same(graph.run_of(module_host, result).tensors, uninterrupted)
