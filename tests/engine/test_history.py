"""The history of a run: its file, its curve, its measures of speed, and the grids of samples."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from trainer_core.engine import charts, metrics
from trainer_core.engine.events import Audience, Checkpointed, Steps, Validated, Warned
from trainer_core.engine.meter import Meter
from trainer_core.engine.metrics import MetricsFile
from trainer_core.engine.trainer import Trainer


def steps(first, losses):
    return Steps(first, losses, 1e-4, 100, 0, 0.123456789, 1.0, 2**30)


def test_each_step_is_a_line_also_where_several_are_told_at_once(tmp_path):
    history = MetricsFile(tmp_path / "metrics.jsonl", 0)
    history.on(steps(1, [0.5, float("nan"), 0.25]))
    history.on(Validated(3, 0.75))
    assert metrics.read(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5, "learning_rate": 1e-4, "seconds": 0.12346},
        {"step": 2, "loss": None, "learning_rate": 1e-4, "seconds": 0.12346},
        {"step": 3, "loss": 0.25, "learning_rate": 1e-4, "seconds": 0.12346},
        {"step": 3, "validation": 0.75},
    ]


def test_a_resumed_run_drops_the_steps_that_it_does_again_and_lines_that_a_crash_tore(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path, 0).on(steps(1, [0.1, 0.2, 0.3, 0.4]))
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    MetricsFile(path, 2).on(steps(3, [0.7]))
    assert [(line["step"], line["loss"]) for line in metrics.read(path)] == [(1, 0.1), (2, 0.2), (3, 0.7)]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_where_losses_are_read_seldom_a_checkpoint_comes_after_all_its_steps(train, monkeypatch, steps_in):
    """As on a GPU: a run that is killed after the checkpoint does not do those steps again."""
    monkeypatch.setattr(Trainer, "reads_every", 10)
    result, heard = train({"run.steps": 8, "run.checkpoint_every": 3})
    told = [event for event in heard.events if isinstance(event, (Steps, Checkpointed))]
    numbers = [(event.first, event.last) if isinstance(event, Steps) else event.step for event in told]
    assert numbers == [(1, 3), 3, (4, 6), 6, (7, 8), 8]
    assert steps_in(result.folder) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_last_look_that_is_repeated_is_told_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path, 0).on(steps(1, [0.1, 0.2]))
    MetricsFile(path, 2, "step-00000002").on(Validated(2, 0.75))
    MetricsFile(path, 2, "step-00000002").on(Validated(2, 0.75))
    assert [line for line in metrics.read(path) if "loss" not in line] == [
        {"step": 2, "checkpoint": "step-00000002"},
        {"step": 2, "validation": 0.75},
    ]


@pytest.mark.parametrize("line", ["[1]", "3", '{"step": "1"}', "{}", "null", ""])
def test_lines_of_other_programs_are_left_out(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 1}}\n{line}\n', encoding="utf-8")
    assert [entry["step"] for entry in metrics.read(path)] == [1]
    assert metrics.read(tmp_path / "none") == []


def test_the_running_mean_is_over_the_last_tenth():
    points = [(step, float(step)) for step in range(1, 41)]
    smooth = charts.running_mean(points)
    assert smooth[0] == (1, 1.0) and smooth[2] == (3, 2.0)
    assert smooth[-1] == (40, pytest.approx((37 + 38 + 39 + 40) / 4))
    assert charts.running_mean([(1, 5.0)]) == [(1, 5.0)]


def colours(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.size == (960, 480)
        return np.asarray(picture.convert("RGB")).astype(int)


def near(pixels, colour):
    return (np.abs(pixels - np.array(colour)).max(-1) < 40).sum()


def test_the_curve_falls_where_the_loss_falls_and_shows_validation_as_dots(tmp_path):
    history = [{"step": step, "loss": 1 - step / 200} for step in range(1, 101)]
    charts.save_loss_plot(tmp_path / "plain.png", history)
    plain = colours(tmp_path / "plain.png")
    charts.save_loss_plot(tmp_path / "dots.png", [*history, {"step": 50, "validation": 0.9}])
    dots = colours(tmp_path / "dots.png")
    assert near(plain, charts.SMOOTH) > 300
    assert near(plain, charts.HELD_OUT) == 0 and near(dots, charts.HELD_OUT) > 10
    green = np.argwhere(np.abs(plain - np.array(charts.SMOOTH)).max(-1) < 40)
    left, right = green[green[:, 1] < 200][:, 0].mean(), green[green[:, 1] > 800][:, 0].mean()
    assert right > left + 100  # pixels count downwards


def test_a_line_stands_where_the_validation_loss_was_lowest(tmp_path):
    history = [{"step": step, "loss": 1.0} for step in range(1, 101)]
    for step, loss, best in ((25, 0.5, 25), (50, 0.4, 50), (75, 0.6, 50)):
        history.append({"step": step, "validation": loss, "best_step": best})
    charts.save_loss_plot(tmp_path / "loss.png", history)
    # A line between two columns of pixels is half as dark in each.
    orange = np.abs(colours(tmp_path / "loss.png") - np.array(charts.HELD_OUT)).max(-1) < 140
    columns = np.flatnonzero(orange.sum(0) > 300)
    assert columns.mean() == pytest.approx(84 + 49 / 99 * (960 - 84 - 24), abs=1) and len(columns) <= 2


@pytest.mark.parametrize(
    "history",
    [
        [{"step": 1, "loss": 0.5}],
        [{"step": step, "loss": 0.0} for step in (1, 2)],
        [{"step": 7, "loss": 1e-9}, {"step": 8, "loss": None}, {"step": 9, "loss": 1e9}],
        [{"step": 10**7 + step, "loss": 0.1} for step in range(3000)],
    ],
    ids=["one step", "zeros", "extremes", "many"],
)
def test_any_history_can_be_drawn(tmp_path, history):
    charts.save_loss_plot(tmp_path / "loss.png", history)
    colours(tmp_path / "loss.png")


def test_without_a_loss_nothing_is_drawn(tmp_path):
    charts.save_loss_plot(tmp_path / "loss.png", [{"step": 3, "validation": 1.0}])
    assert not list(tmp_path.iterdir())


def test_pixels_become_a_picture_and_come_back(tmp_path):
    pixels = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))
    charts.save_png(tmp_path / "a.png", charts.to_image(pixels * 3 - 1))
    with Image.open(tmp_path / "a.png") as picture:
        found = torch.from_numpy(np.array(picture)).float() / 255
    torch.testing.assert_close(found, (pixels * 3 - 1).clamp(0, 1), rtol=0, atol=0.51 / 255)


def test_a_grid_has_a_row_a_label_and_a_column_a_caption():
    red, blue = torch.tensor([1.0, 0, 0]).expand(64, 64, 3), torch.tensor([0, 0, 1.0]).expand(64, 64, 3)
    sheet = charts.grid([[red, blue, red], [blue, red, blue]], ["before", "after"], ["one", "two", "three"])
    bare = charts.grid([[red, blue, red], [blue, red, blue]], ["", ""], ["", "", ""])
    assert sheet.width > bare.width > 3 * 192 and sheet.height > bare.height > 2 * 192
    found = np.asarray(bare).astype(int)
    for y, row in enumerate(("rbr", "brb")):
        for x, colour in enumerate(row):
            pixel = found[16 + y * 200 + 96, 16 + x * 200 + 96]
            assert (pixel == ([255, 0, 0] if colour == "r" else [0, 0, 255])).all()
    assert ((np.asarray(sheet)[:, :60] < 100).all(-1)).any()  # ink of the labels


def test_strips_of_many_pictures_and_of_long_captions_stay_readable(tmp_path):
    pictures = torch.rand(19, 64, 96, 3)
    charts.save_strip(tmp_path / "strip.png", pictures, ["word " * 100, *["一只狗 🐕"] * 18])
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width == 2 * 16 + 8 * 192 + 7 * 8
        assert strip.height > 3 * 128


def test_the_meter_measures_steps_and_not_what_happens_between():
    meter = Meter(torch.device("cpu"), 10)
    for _ in range(3):
        meter.begin()
        time.sleep(0.02)
        meter.end()
        time.sleep(0.1)
    told = meter.steps(3, [0.1, 0.2], 1e-4, 0)
    assert 0.02 <= told.seconds_per_step < 0.06
    assert told.seconds_left == pytest.approx(7 * told.seconds_per_step)
    assert (told.first, told.last, told.total) == (2, 3, 10)
    assert 50e6 < told.memory < 50e9


def test_an_observer_that_fails_is_asked_no_more_and_the_others_hear_of_it():
    class Failing:
        calls = 0

        def on(self, event):
            self.calls += 1
            raise BrokenPipeError("closed")

    class Listening:
        def __init__(self):
            self.heard = []

        def on(self, event):
            self.heard.append(event)

    failing, listening = Failing(), Listening()
    audience = Audience([failing, listening])
    audience.on(Validated(1, 0.5))
    audience.on(Validated(2, 0.25))
    assert failing.calls == 1
    assert [event for event in listening.heard if isinstance(event, Validated)] == [
        Validated(1, 0.5),
        Validated(2, 0.25),
    ]
    assert (
        "Failing failed (BrokenPipeError: closed)" in next(e for e in listening.heard if isinstance(e, Warned)).message
    )
