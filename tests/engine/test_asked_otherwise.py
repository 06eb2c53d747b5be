"""A finished run that is asked for with other previews or another file: nothing is trained, what differs is made."""

import shutil

import pytest

from trainer_core.engine import sampling
from trainer_core.engine.events import Previewed, Started, Steps, Warned


def samples(result):
    return [path.read_bytes() for path in sorted((result.folder / "samples").iterdir())]


def test_other_prompts_are_drawn_without_training(train):
    first, _ = train({"preview.prompts": ["a red ring"]})
    before = samples(first)
    again, heard = train({"preview.prompts": ["a blue cross"]})
    assert (again.status, heard.of(Steps)) == ("finished", [])
    assert [event.prompts for event in heard.of(Previewed)] == [["a blue cross"]]
    assert samples(again) != before


def test_the_same_prompts_are_not_drawn_again(train):
    train({"preview.prompts": ["a red ring"]})
    _, heard = train({"preview.prompts": ["a red ring"]})
    assert heard.of(Started) == [] and heard.of(Previewed) == []


def test_a_last_preview_that_failed_is_tried_again(train, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("the decoder is broken")

    with monkeypatch.context() as broken:
        broken.setattr(sampling, "draw", fails)
        result, heard = train(warnings=True)
    assert result.status == "finished" and "decoder is broken" in heard.of(Warned)[0].message
    result, heard = train()
    assert (heard.of(Steps), len(heard.of(Previewed))) == ([], 1)
    assert len(samples(result)) == 1


@pytest.mark.parametrize("change", [{"preview.prompts": ["a blue cross"]}, {"output.dtype": "fp16"}])
def test_without_a_checkpoint_a_finished_run_stays_as_it_is_and_says_so(train, change):
    first, _ = train()
    shutil.rmtree(first.folder / "checkpoints")
    kept = first.lora.read_bytes()
    again, heard = train(change, warnings=True)
    assert (again.status, heard.of(Steps), again.lora.read_bytes()) == ("finished", [], kept)
    assert "has no checkpoint left" in heard.of(Warned)[0].message
