"""A process that has everything imported and forks runs, kills them, goes on with them and looks at what is left."""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from folders import differences, encoded, leftovers, problems_while_dead, state_after_death
from moments import Moments

from trainer_core import recipe
from trainer_core.data import dataset
from trainer_core.engine import run
from trainer_core.engine.events import Warned
from trainer_core.families import registry

SETTINGS = {
    "adapter.rank": 4,
    "adapter.dropout": 0.1,
    "dataset.holdout": 1,
    "dataset.caption_dropout": 0.2,
    "dataset.cache": "disk",
    "dataset.workers": 0,
    "optimizer.learning_rate": 1e-3,
    "optimizer.schedule": "cosine",
    "run.steps": 8,
    "run.batch_size": 2,
    "run.device": "cpu",
    "run.checkpoint_every": 2,
    "run.keep_checkpoints": 2,
    "run.validate_every": 2,
    "run.preview_every": 4,
    "preview.steps": 2,
    "preview.count": 1,
    "output.dtype": "fp32",
}


class Trials:
    """Runs of one recipe in children of this process, each in a folder of its own.

    Args:
        work: a folder that is made.
        settings: by dotted name, the base and the dataset among them.
        model: the base, loaded.
    """

    def __init__(self, work: Path, settings: dict, model):
        self.work, self.settings, self.model = work, {**SETTINGS, **settings}, model
        self.work.mkdir()
        threads = os.listdir("/proc/self/task")
        assert len(threads) == 1, f"{len(threads)} threads: a fork would copy their locks and not them"
        began = time.monotonic()
        told = self.told(self._fork("straight", {}, None), "straight")
        self.seconds, self.moments = time.monotonic() - began, told["moments"]
        self.items = told["encoded"]

    def random_death(self, number: int) -> dict:
        """A run that is killed at a moment drawn from its whole length, every fourth a second time when it goes on."""
        dice = random.Random(f"random {number}")
        name = f"random-{number}"
        deaths = []
        for _ in range(1 + (number % 4 == 3)):
            moment = dice.uniform(0, self.seconds)
            self._wait(self._start(name, {}, None), moment)
            deaths.append(state_after_death(self.work / name))
        return self._outcome(name, f"at any time: {deaths[-1]}", number)

    def named_death(self, number: int, kind: str) -> dict:
        """A run that dies at a moment of a kind; at which of them, if there are several, is drawn."""
        dice = random.Random(f"named {number}")
        last = dice.choice([index for index, name in enumerate(self.moments) if name == kind])
        name = f"named-{number}"
        code = self._wait(self._start(name, {}, last), 120)
        return self._outcome(name, kind, number, [] if code == -signal.SIGKILL else [f"it did not die: {code}"])

    def _outcome(self, name: str, death: str, number: int, problems: list[str] = ()) -> dict:
        """Goes on with a dead run, and compares it with the one that never died."""
        folder, cache = self.work / name, self.work / f"{name}-cache"
        problems = [*problems, *problems_while_dead(folder)]
        there = len(encoded(cache))
        # Threads read ahead in the one that goes on, and did not before.
        workers = 3 if number % 2 else 0
        code = self._fork(name, {"dataset.workers": workers}, None)
        if code == 0:
            told = self.told(code, name)
            if told["encoded"] != self.items - there:
                problems.append(f"{told['encoded']} items were encoded, but {self.items - there} of them were missing")
            problems += [f"warned: {text}" for text in told["warnings"]]
            problems += differences(self.work / "straight", folder)
            problems += leftovers(folder, cache)
        else:
            problems.append(f"the run did not go on ({code}): {(self.work / f'{name}.log').read_text()[-2000:]}")
        if not problems:
            shutil.rmtree(folder)
            shutil.rmtree(cache)
        return {"death": death, "problems": problems}

    # ---- children

    def told(self, code: int, name: str) -> dict:
        assert code == 0, (self.work / f"{name}.log").read_text()
        return json.loads((self.work / f"{name}.json").read_text())

    def _fork(self, *given) -> int:
        return self._wait(self._start(*given), 300)

    def _start(self, name: str, changes: dict, last: int | None) -> int:
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with open(self.work / f"{name}.log", "w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            self._run(name, changes, Moments(last))
            code = 0
        except BaseException:  # the parent reads it in the log, and the exit code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, child: int, seconds: float) -> int:
        """The child's exit code; it is killed after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)

    def _run(self, name: str, changes: dict, moments: Moments) -> None:
        """In the child: trains, and tells what it encoded, what it was warned of, and its moments."""
        counted = [0]
        for encode in ("encode_picture", "encode_text"):
            setattr(dataset, encode, _counting(getattr(dataset, encode), counted))
        warnings: list[str] = []

        class Listener:
            def on(self, event):
                if isinstance(event, Warned):
                    warnings.append(event.message)

        values = {**self.settings, **changes, "dataset.cache_path": str(self.work / f"{name}-cache")}
        nested: dict = {}
        for key, value in values.items():
            part, _, inner = key.rpartition(".")
            (nested.setdefault(part, {}) if part else nested)[inner] = value
        run.train(recipe.from_dict(nested), self.work / name, [Listener()], model=self.model)
        told = {"encoded": counted[0], "warnings": warnings, "moments": moments.named()}
        (self.work / f"{name}.json").write_text(json.dumps(told))


def _counting(encode: Callable, counted: list[int]) -> Callable:
    def count(*given):
        counted[0] += 1
        return encode(*given)

    return count


def main(work: Path, base: str, asked: list[dict]) -> None:
    """Prints a line of JSON for each trial: {"run", "death", "problems"}.

    Args:
        asked: for each run its name (`run`), `settings`, how many deaths at any time (`random`) and at named moments
            (`named`, each kind in turn), and `kinds` where only some of them are wanted.
    """
    torch.set_num_threads(1)
    model = registry.load(base)
    for one in asked:
        trials = Trials(work / one["run"], {"base": base, **one["settings"]}, model)
        kinds = one.get("kinds") or sorted(set(trials.moments))
        for number in range(one.get("named", 0)):
            print(json.dumps({"run": one["run"], **trials.named_death(number, kinds[number % len(kinds)])}), flush=True)
        for number in range(one.get("random", 0)):
            print(json.dumps({"run": one["run"], **trials.random_death(number)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
