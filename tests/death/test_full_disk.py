"""A full disk does not end a training: what cannot be written is said, tried again, and nothing whole is given up."""

import pytest
from safetensors.torch import load_file

from trainer_core.data.disk_cache import DiskCache
from trainer_core.engine import checkpoints, metrics, run
from trainer_core.engine.events import Checkpointed, Finished, Started, Steps, Warned, Working
from trainer_core.errors import BadInput, ScionError


class Events:
    """Hears a run, and does something at some of its events."""

    def __init__(self, does=()):
        self.events, self.does = [], dict(does)

    def on(self, event):
        self.events.append(event)
        if isinstance(event, Working):
            where = event.what, event.done
        else:
            where = type(event), getattr(event, "last", getattr(event, "step", None))
        self.does.get(where, lambda: None)()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


SETTINGS = {"run.steps": 8, "run.checkpoint_every": 2, "dataset.holdout": 1, "run.validate_every": 2}


def timeless(history):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in history]


def test_a_disk_that_is_full_for_a_while_costs_only_the_checkpoints_of_that_while(disk, make_recipe, train):
    straight, _ = train(SETTINGS, "straight")
    whole = []

    def free():
        whole.extend(checkpoints.read(path).step for path in (disk.folder / "run/checkpoints").glob("step-*"))
        disk.free()

    heard = Events({(Steps, 3): disk.fill, (Steps, 7): free})
    result = run.train(make_recipe(SETTINGS), disk.folder / "run", [heard])
    assert result.status == "finished"
    assert [event.step for event in heard.of(Checkpointed)] == [2, 8] and whole == [2]
    told = [event.message for event in heard.of(Warned)]
    failed = [text for text in told if "checkpoint failed" in text]
    assert [text.partition(":")[0] for text in failed] == ["step 4", "step 6"]
    assert "step-00000004: cannot be written (No space left on device); free space on the disk" in failed[0]
    history = [text for text in told if "metrics.jsonl" in text]
    assert len(history) == disk.refuses_lines and len(told) == 2 + len(history)
    assert all("written when there is space again" in text for text in history)
    a, b = load_file(straight.lora), load_file(result.lora)
    assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)
    lost = [{"step": step, "checkpoint": f"step-0000000{step}"} for step in (4, 6)]
    expected = [line for line in timeless(metrics.read(straight.folder / "metrics.jsonl")) if line not in lost]
    assert timeless(metrics.read(result.folder / "metrics.jsonl")) == expected
    assert not [path for path in result.folder.rglob("*") if path.name.startswith((".scion-", ".partial-"))]


def test_a_lora_that_finds_no_place_at_the_end_is_written_later_without_training_again(disk, make_recipe):
    heard = Events({(Checkpointed, 8): disk.fill})
    with pytest.raises(ScionError, match="things.safetensors: cannot be written .No space left.*Free space") as caught:
        run.train(make_recipe(SETTINGS), disk.folder / "run", [heard])
    assert not isinstance(caught.value, BadInput)
    (note,) = caught.value.__notes__
    assert "Kept: step 8, the last: nothing has to be trained again" in note
    assert f'scion train "{disk.folder / "run" / "recipe.json"}"' in note
    assert not (disk.folder / "run" / "things.safetensors").exists() and not heard.of(Finished)
    disk.free()
    heard = Events()
    result = run.train(make_recipe(SETTINGS), disk.folder / "run", [heard])
    assert (result.status, heard.of(Started)[0].step, heard.of(Steps)) == ("finished", 8, [])
    a, b = load_file(result.folder / "checkpoints/step-00000008/things.safetensors"), load_file(result.lora)
    assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)
    history = metrics.read(result.folder / "metrics.jsonl")
    assert [line["step"] for line in history if "loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["step"] for line in history if "validation" in line] == [2, 4, 6, 8]


def test_a_disk_that_is_full_while_encoding_ends_the_run_in_one_sentence_and_keeps_what_is_encoded(disk, make_recipe):
    cache = disk.folder / "cache"
    asked = make_recipe({"dataset.cache": "disk", "dataset.cache_path": str(cache), "dataset.workers": 0})
    with pytest.raises(ScionError) as caught:
        run.train(asked, disk.folder / "run", [Events({("encoding", 3): disk.fill})])
    said = str(caught.value)
    assert not isinstance(caught.value, BadInput) and "\n" not in said
    assert said.startswith(f"dataset.cache_path: {cache}: cannot be written to (No space left on device)")
    for remedy in ("Free space", "set dataset.cache to 'memory'", "another dataset.cache_path"):
        assert remedy in said
    names = [path.stem for path in cache.glob("*/*")]
    assert len(names) == 3 and all(DiskCache(cache).get(name) is not None for name in names)
    disk.free()
    assert run.train(asked, disk.folder / "run").status == "finished"
