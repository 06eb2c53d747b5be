"""A workflow that is queued again: what is finished is returned, what decides trains anew, what does not, does not."""

import time

import pytest
import torch


@pytest.fixture
def trained(module_host, graph):
    """A finished run, its prompt, and what its files were."""
    prompt = graph.training()
    run = graph.run_of(module_host, module_host.run(prompt))
    return prompt, run, run.stamps(), run.tensors


def free(host):
    host.free()
    time.sleep(1)  # the host answers before it has done so


def check_returned(host, graph, trained, result, node="train"):
    _, run, stamps, tensors = trained
    again = graph.run_of(host, result, node)
    assert again.folder == run.folder
    assert result.outputs[node]["scion"][0]["status"] == "finished"
    assert again.stamps() == stamps
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in tensors.items())


def test_host_remembers_a_finished_run(module_host, graph, trained):
    before = graph.runs(module_host)
    result = module_host.run(trained[0])
    assert "train" in graph.remembered(result)
    check_returned(module_host, graph, trained, result)
    assert graph.runs(module_host) == before


def test_run_is_returned_after_the_host_has_freed_its_cache(module_host, graph, trained):
    before = graph.runs(module_host)
    free(module_host)
    result = module_host.run(trained[0])
    assert "train" not in graph.remembered(result)
    check_returned(module_host, graph, trained, result)
    assert not [message for message in result.messages if message.type == "scion.step"]
    assert graph.runs(module_host) == before


def test_run_is_returned_after_a_restart(module_host, graph, trained):
    before = graph.runs(module_host)
    module_host.restart()
    result = module_host.run(trained[0])
    assert "train" not in graph.remembered(result)
    check_returned(module_host, graph, trained, result)
    assert graph.runs(module_host) == before


def test_returned_run_gives_the_graph_the_same_as_when_it_was_trained(module_host, graph):
    prompt = graph.training(config={"seed": 21, "learning_rate": 0.02})
    prompt |= graph.sampling("first", lora=("train", 0))
    prompt["samples"] = graph.node("SaveImage", images=("train", 2), filename_prefix="samples")
    prompt["plot"] = graph.node("SaveImage", images=("train", 3), filename_prefix="plot")
    first = module_host.run(prompt)
    free(module_host)
    second = module_host.run(prompt)
    assert "train" not in graph.remembered(second)
    for name in ("first", "samples", "plot"):
        assert (graph.drawn(module_host, first, name) == graph.drawn(module_host, second, name)).all(), name


@pytest.mark.parametrize(
    "part, setting",
    [
        ("config", {"learning_rate": 2e-3}),
        ("config", {"rank": 2}),
        ("config", {"seed": 9}),
        ("config", {"targets": "all"}),
        ("dataset", {"trigger": "zorb"}),
        ("dataset", {"flip": "random"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_setting_that_decides_trains_anew(module_host, graph, trained, part, setting):
    result = module_host.run(graph.training(**{part: setting}))
    other = graph.run_of(module_host, result)
    assert other.folder != trained[1].folder
    assert other.state["step"] == 3


def test_more_steps_go_on_with_the_run_and_fewer_are_refused(module_host, graph):
    def queue(steps):
        return module_host.run(graph.training(config={"seed": 31, "steps": steps}))

    short = graph.run_of(module_host, queue(2))
    losses = short.losses
    longer = graph.run_of(module_host, queue(4))
    assert (longer.folder, longer.state["step"]) == (short.folder, 4)
    assert longer.losses[:2] == losses
    assert "has done 4 already" in graph.said(queue(3))


def test_nodes_with_other_names_train_nothing(module_host, graph, trained):
    names = {name: str(place + 70) for place, name in enumerate(trained[0])}

    def renamed(value):
        return [names[value[0]], value[1]] if isinstance(value, list) else value

    prompt = {
        names[name]: {**node, "inputs": {key: renamed(value) for key, value in node["inputs"].items()}}
        for name, node in trained[0].items()
    }
    check_returned(module_host, graph, trained, module_host.run(prompt), names["train"])


@pytest.mark.parametrize(
    "part, setting",
    [
        ("config", {"preview_every": 2}),
        ("config", {"checkpoint_every": 1}),
        ("dataset", {"cache": "memory"}),
        ("train", {"existing": "resume"}),
        ("train", {"patched_model": "bake"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_setting_that_does_not_decide_trains_nothing(module_host, graph, trained, part, setting):
    check_returned(module_host, graph, trained, module_host.run(graph.training(**{part: setting})))


def test_new_name_is_the_same_run_under_that_name(module_host, graph, trained):
    _, run, _, tensors = trained
    steps = run.losses
    renamed = graph.run_of(module_host, module_host.run(graph.training(train={"name": "other"})))
    assert (renamed.folder, renamed.file.name) == (run.folder, "other.safetensors")
    assert renamed.losses == steps
    assert all(torch.equal(tensor, renamed.tensors[name]) for name, tensor in tensors.items())


def test_existing_new_trains_beside_it(module_host, graph, trained):
    _, run, stamps, tensors = trained
    beside = graph.run_of(module_host, module_host.run(graph.training(train={"existing": "new"})))
    assert beside.folder.name.startswith(run.folder.name + "-")
    assert run.stamps() == stamps
    assert all(torch.equal(tensor, beside.tensors[name]) for name, tensor in tensors.items())


def test_existing_error_refuses(module_host, graph, trained):
    result = module_host.run(graph.training(train={"existing": "error"}))
    assert result.error["node_id"] == "train"
    said = graph.said(result)
    assert trained[1].folder.name in said
    assert "holds a run already (finished, step" in said


def test_other_preview_prompts_are_drawn_with_the_finished_lora(module_host, graph, trained):
    _, run, _, tensors = trained
    before = samples(run)
    result = module_host.run(graph.training(config={"preview_prompts": "a blue cross on a white background"}))
    again = graph.run_of(module_host, result)
    assert again.folder == run.folder
    assert not result.of("scion.step") and len(result.of("scion.preview")) == 1
    assert samples(again) != before
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in tensors.items())


def samples(run):
    return [path.read_bytes() for path in sorted((run.folder / "samples").glob("*.png"))]


def test_new_runs_are_numbered_one_after_another_and_the_last_is_gone_on_with(module_host, graph):
    prompt = graph.training(config={"seed": 4711})
    folders = [graph.run_of(module_host, module_host.run(prompt)).folder]
    for _ in range(3):
        free(module_host)
        anew = graph.training(config={"seed": 4711}, train={"existing": "new"})
        folders.append(graph.run_of(module_host, module_host.run(anew)).folder)
    names = [folder.name.removeprefix(folders[0].name) for folder in folders]
    assert names == ["", "-2", "-3", "-4"]
    free(module_host)
    assert graph.run_of(module_host, module_host.run(prompt)).folder == folders[-1]
