"""A run in the graph that ends early, and whose file has the moving average of the best step."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

CONFIG = {
    "steps": 40,
    "learning_rate": 0.03,  # far too high: the loss soon rises
    "validate_every": 1,
    "early_stop": 2,
    "ema_decay": 0.5,
    "keep_best": True,
    "output_checkpoint": "best",
    "keep_checkpoints": 1,
}


@pytest.fixture(scope="module")
def prompt(graph):
    return graph.training(config=CONFIG, dataset={"holdout": 1}, train={"name": "early"})


@pytest.fixture(scope="module")
def ran(module_host, prompt):
    with module_host.listen() as listener:
        end, _ = listener.until_done(module_host.queue(prompt, listener.client_id))
        assert end.type == "execution_success", end.data
        validated = [message.data for message in listener.messages if message.type == "scion.validation"]
        [finished] = [message.data for message in listener.messages if message.type == "scion.finished"]
    return validated, finished


@pytest.fixture(scope="module")
def run(module_host, graph, ran):
    [state] = module_host.base.glob("output/scion/*/run.json")
    return graph.Run(state.parent)


def test_run_ends_when_two_validations_were_no_better_and_says_so(ran):
    validated, finished = ran
    losses = [said["loss"] for said in validated]
    best = 1 + losses.index(min(losses))
    last = len(losses)
    assert last == best + 2 < 40
    assert [said["best"]["step"] for said in validated][-3:] == [best] * 3
    assert (finished["status"], finished["step"], finished["total"]) == ("finished", last, 40)
    why = f"the validation loss has not improved since step {best}"
    assert (finished["early"], finished["by_hand"], finished["lines"][0]) == (True, False, f"It ended early, {why}.")


def test_file_has_the_average_of_the_best_step(ran, run):
    best = ran[0][-1]["best"]["step"]
    kept = run.folder / "checkpoints" / f"step-{best:08d}"
    with safe_open(run.file, "pt") as file:
        said = file.metadata()
    assert (said["scion.ema_decay"], said["ss_steps"]) == ("0.5", str(best))
    average = load_file(kept / "ema.safetensors")
    [name] = [name for name in average if "mid_block.attentions.0" in name and "attn1.to_q.lora_A" in name]
    [in_file] = [name for name in run.tensors if "mid_block_attentions_0" in name and "attn1_to_q.lora_down" in name]
    assert torch.equal(run.tensors[in_file], average[name])
    assert not torch.equal(average[name], load_file(kept / "adapter.safetensors")[name])


def test_it_is_returned_at_once_and_goes_on_where_more_patience_is_asked(module_host, graph, ran, run):
    # One that would have ended it no later is another prompt to the host, and the same run.
    for patience, started in ((1, []), (3, [ran[1]["step"]])):
        config = {**CONFIG, "early_stop": patience}
        result = module_host.run(graph.training(config=config, dataset={"holdout": 1}, train={"name": "early"}))
        assert graph.run_of(module_host, result).folder == run.folder
        assert [message.data["step"] for message in result.of("scion.started")] == started
