"""A run's history for its chart: thinned to buckets that keep what is high and low, exact where it is short."""

import json
import math
from pathlib import Path

from trainer_core.engine.history import History, smoothing_window

SMOOTHED = Path(__file__).parents[1] / "web/smoothed.json"


def lines(losses, first=1, rate=1e-4):
    return [{"step": step, "loss": loss, "learning_rate": rate} for step, loss in enumerate(losses, first)]


def test_short_history_is_given_as_it_is():
    told = History(lines([4.0, 2.0, None, 1.0])).thinned(4000)
    assert (told.step, told.loss, told.low, told.high) == ([1, 2, 4], *[[4.0, 2.0, 1.0]] * 3)


def test_long_history_keeps_the_mean_and_the_extremes_of_each_bucket():
    losses = [1.0] * 100_000
    losses[54_321], losses[77_777] = 9.0, -3.0
    told = History(lines(losses)).thinned(1000)
    assert len(told.step) == len(told.loss) == 1000 and told.step[:2] == [100, 200] and told.step[-1] == 100_000
    assert (told.high.count(9.0), told.high[543], told.low[777]) == (1, 9.0, -3.0)
    assert math.isclose(told.loss[543], 1.08) and told.loss[0] == 1.0


def test_buckets_are_never_more_than_was_asked():
    for count in (999, 1000, 1001, 1999, 2001):
        assert len(History(lines([1.0] * count)).thinned(1000).step) <= 1000
    assert len(History(lines([1.0] * 999)).thinned(1000).step) == 999


def test_what_comes_after_a_step_is_given_alone():
    history = History(lines([3.0, 2.0, 1.0]))
    assert (history.thinned(10, 2).step, history.thinned(10, 3).step) == ([3], [])
    assert history.learning_rate(10, 3) == []


def test_learning_rate_is_told_where_it_changes():
    history = History([*lines([1.0] * 3), *lines([1.0] * 3, 4, 2e-4)])
    assert history.learning_rate(10) == [(1, 1e-4), (4, 2e-4), (6, 2e-4)]
    falling = History([line for step in range(1, 1001) for line in lines([1.0], step, 1 / step)])
    told = falling.learning_rate(50)
    assert len(told) <= 51 and told[0] == (1, 1.0) and told[-1] == (1000, 1e-3)


def test_loss_of_a_run_follows_over_a_window_that_hangs_on_its_length():
    assert History([]).smoothed_loss(10) is None and History(lines([None])).smoothed_loss(10) is None
    assert History(lines([None, 9.0, None])).smoothed_loss(10) == 9.0
    falls = History(lines([1.0] * 100 + [0.0] * 10))
    assert math.isclose(falls.smoothed_loss(500), math.exp(-1)), "ten steps are the window of 500"
    assert math.isclose(falls.smoothed_loss(5), math.exp(-2)), "no window is shorter than five"
    assert [smoothing_window(total) for total in (10, 275, 1000, 10**6)] == [5, 6, 20, 500]


def test_loss_of_a_run_is_the_end_of_the_line_that_the_page_draws():
    """tests/web/series.test.mjs computes the page's from the same file."""
    for run in json.loads(SMOOTHED.read_text())["runs"]:
        told = History(lines(run["losses"])).smoothed_loss(run["total"])
        assert math.isclose(told, run["smoothed"], rel_tol=1e-12)


def test_preview_of_an_older_scion_is_told_by_its_name():
    [one] = History([{"step": 3, "preview": "step-00000003.png"}]).previews
    assert one == {"step": 3, "name": "step-00000003.png", "prompts": [], "count": None, "width": None, "height": None}
