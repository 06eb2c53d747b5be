"""While a run trains in the graph, the page hears of it; the host's queue and cache treat it as any other node."""

import io
import math
import shutil
import time

import pytest
import torch
from PIL import Image

STEPS = 12
MANY = {
    "steps": STEPS,
    "checkpoint_every": 4,
    "validate_every": 3,
    "preview_every": 6,
    "preview_prompts": "a red ring\na blue ball",
}
KINDS = ("scanned", "started", "step", "checkpoint", "validation", "preview", "finished")
NO_RUN = (
    "nothing-of-this-name",
    "..",
    ".",
    "%2e%2e",
    "%2e%2e%2f%2e%2e",
    "a%2fb",
    "a/b",
    "..%2fscion",
    "%2fetc",
    "/etc",
    "%5c%5chost%5cshare",
    "%00",
    "no-run",
    "x" * 5000,
)


def told(result, kind):
    """The data of a run's messages of a kind."""
    return [message.data for message in result.of(f"scion.{kind}")]


def losses(result):
    """The losses of all steps, by step, as the messages about steps tell them."""
    return {said["first"] + place: loss for said in told(result, "step") for place, loss in enumerate(said["losses"])}


@pytest.fixture(scope="module")
def prompt(graph):
    """A run with a checkpoint, a validation and a preview on its way."""
    return graph.training(config={**MANY, "seed": 77}, dataset={"holdout": 1}, train={"name": "heard"})


@pytest.fixture(scope="module")
def ran(module_host, prompt):
    result = module_host.run(prompt)
    assert result.status == "success", result.error
    return result


@pytest.fixture(scope="module")
def run(module_host, graph, ran):
    return graph.run_of(module_host, ran)


def test_every_message_names_node_and_prompt_and_once_known_the_run(ran, run):
    known = False
    for message in ran.messages:
        if message.type.startswith("scion."):
            known = known or message.type == "scion.started"
            said = message.data["node"], message.data["prompt_id"], message.data["run"]
            assert said == ("train", ran.prompt_id, run.folder.name if known else None), message.type


def test_messages_come_in_the_order_of_a_run(ran):
    names = [message.type.removeprefix("scion.") for message in ran.messages if message.type.startswith("scion.")]
    names = [name for name in names if name != "working"]
    assert set(names) == set(KINDS)
    assert (names[:3], names[-1]) == (["scanned", "started", "step"], "finished")
    assert [names.count(once) for once in ("scanned", "started", "finished")] == [1, 1, 1]


def test_scan_report_counts_the_pictures(ran):
    [said] = told(ran, "scanned")
    assert said["lines"][0].startswith("5 pictures, 5 with a caption")


def test_start_says_what_will_train(ran, run):
    [said] = told(ran, "started")
    assert (said["step"], said["total"], said["precision"], said["device"]) == (0, STEPS, "fp32", "cpu")
    assert said["parameters"] == sum(tensor.numel() for name, tensor in run.tensors.items() if "alpha" not in name)
    assert said["modules"] == sum(".lora_down." in name for name in run.tensors)


def test_losses_come_step_by_step_without_gaps_or_repeats(ran, run):
    following = 1
    for said in told(ran, "step"):
        assert said["first"] == following
        assert said["losses"]
        following += len(said["losses"])
    assert following == STEPS + 1
    assert list(losses(ran).values()) == run.losses


def test_messages_about_steps_tell_rate_pace_and_rest(ran):
    said = told(ran, "step")
    assert {one["total"] for one in said} == {STEPS}
    assert all(0 < one["learning_rate"] <= 1e-3 and one["seconds_per_step"] > 0 for one in said)
    assert said[-1]["seconds_left"] == 0 < said[0]["seconds_left"]
    # Four pictures in batches of two make two or three batches an epoch, as the buckets are uneven.
    assert said[0]["epoch"] == 0 < said[-1]["epoch"]
    assert min(one["memory"] for one in said) > 50e6


def test_fast_steps_are_told_at_most_ten_times_a_second(module_host, graph):
    config = {"steps": 100, "batch_size": 1, "rank": 1, "seed": 78}
    result = module_host.run(graph.training(config=config, dataset={"resolution": 32}))
    assert list(losses(result)) == list(range(1, 101))
    messages = result.of("scion.step")
    seconds = messages[-1].time - messages[0].time
    if 100 / seconds < 12:
        pytest.skip("steps take too long here to be held back")
    # One more for where the counting begins, and one for the last step, which does not wait.
    assert len(messages) <= 10 * seconds + 2


def test_checkpoints_are_told_and_lie_in_the_folder(ran, run):
    said = told(ran, "checkpoint")
    assert [one["step"] for one in said] == [4, 8, 12]
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == [one["name"] for one in said]


def test_validations_tell_the_loss_on_the_pictures_held_out(ran):
    said = told(ran, "validation")
    assert [one["step"] for one in said] == [3, 6, 9, 12]
    assert all(math.isfinite(one["loss"]) and one["loss"] > 0 for one in said)
    assert len({one["loss"] for one in said}) == 4
    lowest = min(said, key=lambda one: one["loss"])
    assert said[-1]["best"] == {"step": lowest["step"], "loss": lowest["loss"]}


def test_what_the_steps_wait_for_is_told(ran):
    phases = [one["what"] for one in told(ran, "working")]
    assert set(phases) == {"encoding", "validating", "saving", "previewing"}
    drawn = [(one["done"], one["total"]) for one in told(ran, "working") if one["what"] == "previewing"]
    assert drawn == [(0, 0), (1, 1)] * 2  # two previews of one denoising step


def test_previews_are_told_by_name_and_prompt(ran, run):
    said = told(ran, "preview")
    assert [one["step"] for one in said] == [6, 12]
    assert said[0]["prompts"] == ["a red ring", "a blue ball"]
    assert (said[0]["count"], said[0]["width"], said[0]["height"]) == (2, 64, 64)
    assert all((run.folder / "previews" / one["name"]).is_file() for one in said)


def test_end_is_told_with_the_file(ran, run):
    [said] = told(ran, "finished")
    assert (said["status"], said["step"], said["total"], said["lora"]) == ("finished", STEPS, STEPS, run.file.name)
    assert said["early"] is False
    assert any("ComfyUI" in line for line in said["lines"])


def test_hosts_own_progress_counts_the_steps(ran):
    values = [
        (message.data["value"], message.data["max"])
        for message in ran.of("progress")
        if message.data["node"] == "train"
    ]
    steps = [value for value, most in values if most == STEPS]
    assert (steps[0], steps[-1]) == (0, STEPS)
    assert steps == sorted(steps)
    states = [message.data["nodes"].get("train", {}) for message in ran.of("progress_state")]
    assert {"value": STEPS, "max": STEPS, "state": "finished"}.items() <= states[-1].items()


def test_preview_picture_comes_with_its_node(ran):
    previews = [message.preview() for message in ran.of("binary")]
    assert [about["node_id"] for about, _ in previews] == ["train"] * 2
    picture = Image.open(io.BytesIO(previews[0][1]))
    # Two square pictures side by side, no larger than they are.
    assert (picture.format, picture.size) == ("JPEG", (128, 64))


def test_client_that_knows_no_metadata_gets_the_bare_preview(module_host, graph, connect):
    class Plain(connect):
        FEATURES = {}

    with Plain(module_host.port, "plain") as listener:
        prompt_id = module_host.queue(graph.training(config={"seed": 79}), listener.client_id)
        listener.until_done(prompt_id)
        kinds = [message.event for message in listener.of("binary")]
        [picture] = [message.preview()[1] for message in listener.of("binary") if message.event == 1]
    assert 4 not in kinds
    assert Image.open(io.BytesIO(picture)).size == (64, 64)


def test_all_pages_hear_how_many_pictures_the_dataset_s_node_has_checked_and_no_line_stays_on_it(module_host, graph):
    with module_host.listen() as listener:
        # Pictures that were not looked at before: else nothing would be checked.
        prompt = graph.training(config={"seed": 80}, dataset={"trigger": "sks"})
        listener.until_done(module_host.queue(prompt, listener.client_id))
        assert not [message for message in listener.of("binary") if message.event == 3]
        assert listener.of("scion.checking")[-1].data == {"node": "dataset", "done": 5, "total": 5}


def test_history_of_a_run_is_the_sum_of_its_messages(module_host, ran, run):
    answer = module_host.get(f"/scion/runs/{run.folder.name}")
    state = {"status": "finished", "early": False, "active": False, "step": STEPS, "total": STEPS}
    assert {"run": run.folder.name, "lora": run.file.name, **state}.items() <= answer.items()
    assert dict(zip(answer["series"]["step"], answer["series"]["loss"], strict=True)) == losses(ran)
    assert answer["validation"] == [[said["step"], said["loss"]] for said in told(ran, "validation")]
    assert answer["best"] == told(ran, "validation")[-1]["best"]
    assert answer["checkpoints"] == [said["step"] for said in told(ran, "checkpoint")]
    carried = ("node", "prompt_id", "run")
    assert answer["previews"] == [
        {key: value for key, value in said.items() if key not in carried} for said in told(ran, "preview")
    ]
    assert answer["settings"]["adapter.rank"] == 4 and answer["learning_rate"][0] == [1, 1e-3]


def test_history_can_be_had_while_the_run_goes_on(module_host, graph):
    with module_host.listen() as listener:
        prompt_id = module_host.queue(graph.training(config={"seed": 81, "steps": 60}), listener.client_id)
        message = listener.wait_for(lambda message: message.type == "scion.step" and message.data["first"] > 3)
        answer = module_host.get(f"/scion/runs/{message.data['run']}")
        module_host.interrupt(prompt_id)
        listener.until_done(prompt_id)
    told = message.data["first"] + len(message.data["losses"]) - 1
    assert (answer["status"], answer["total"]) == ("unfinished", 60)
    steps = answer["series"]["step"]
    assert steps == list(range(1, len(steps) + 1))
    assert told <= len(steps) < 60


@pytest.mark.parametrize("run_id", NO_RUN, ids=lambda text: text[:20])
def test_unknown_run_is_not_found(module_host, ran, run_id):
    (module_host.base / "output" / "scion" / "no-run").mkdir(exist_ok=True)
    with pytest.raises(Exception, match=r"^HTTP 404") as caught:
        module_host.get(f"/scion/runs/{run_id}")
    assert "series" not in str(caught.value)


def test_folder_beside_the_runs_is_no_run(module_host, ran, run):
    elsewhere = module_host.base / "output" / "elsewhere"
    shutil.copytree(run.folder, elsewhere)
    for name in ("..%2felsewhere", "%2e%2e%2felsewhere", "%2E%2E/elsewhere", "../elsewhere"):
        with pytest.raises(Exception, match=r"^HTTP 404"):
            module_host.get(f"/scion/runs/{name}")


def test_run_without_anyone_listening_is_the_same_run(module_host, graph, prompt, run):
    again = graph.training(
        config={**MANY, "seed": 77}, dataset={"holdout": 1}, train={"name": "unheard", "existing": "new"}
    )
    prompt_id = module_host.queue(again)
    deadline = time.monotonic() + 60
    while (record := module_host.history(prompt_id)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert record["status"]["status_str"] == "success"
    unheard = graph.Run(run.folder.parent / record["outputs"]["train"]["scion"][0]["run"])
    assert unheard.folder != run.folder
    assert unheard.tensors.keys() == run.tensors.keys()
    assert all(torch.equal(tensor, run.tensors[name]) for name, tensor in unheard.tensors.items())
    assert module_host.get(f"/scion/runs/{unheard.folder.name}")["series"]["loss"] == run.losses


def test_two_prompts_run_one_after_the_other(module_host, graph):
    with module_host.listen() as listener:
        seeds = (82, 83)
        first, second = (module_host.queue(graph.training(config={"seed": seed}), listener.client_id) for seed in seeds)
        listener.until_done(second)
        order = [
            (message.data["prompt_id"], message.type.removeprefix("scion."))
            for message in listener.messages
            if message.type in ("scion.started", "scion.finished")
        ]
    assert order == [(first, "started"), (first, "finished"), (second, "started"), (second, "finished")]


def test_same_prompt_twice_is_taken_from_the_hosts_cache(module_host, graph):
    with module_host.listen() as listener:
        first, second = (module_host.queue(graph.training(config={"seed": 84}), listener.client_id) for _ in range(2))
        listener.until_done(second)
        [cached] = [message.data["nodes"] for message in listener.of("execution_cached") if message.prompt_id == second]
        trained = {message.prompt_id for message in listener.messages if message.type.startswith("scion.")}
    assert "train" in cached
    assert trained == {first}
    assert module_host.history(second)["outputs"]["train"] == module_host.history(first)["outputs"]["train"]
