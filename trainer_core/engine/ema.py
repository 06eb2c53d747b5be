"""The exponential moving average of what trains: weights smoother than those of any one step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ..errors import ScionError


class Ema:
    """The average of parameters over the steps, in fp32, where the parameters are.

    Update n, counted from 0, moves the average towards the parameters by 1 - decay_n of the difference, where
    decay_0 = 0 and decay_n = min((1 + n) / (10 + n), decay): the warm-up of TensorFlow's ExponentialMovingAverage. The
    numbers are those of `diffusers.training_utils.EMAModel`, which is not used because it counts its updates on the
    host: whether a step was skipped is known on the device, and asking for it would make every step wait.

    Args:
        parameters: what trains, by name; the average begins with their present values.
        decay: above 0, below 1.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float):
        self._parameters, self._decay = parameters, decay
        # In one piece, so that an update is a handful of kernels however many parameters there are. The room for the
        # change is kept: a CPU takes longer to get tens of megabytes from the system than to compute with them.
        self._average = self._present()
        self._change = torch.empty_like(self._average)
        self._updates = torch.zeros((), device=self._average.device)

    def _present(self) -> torch.Tensor:
        """The parameters one after the other: float32 [N], a copy."""
        return torch.cat(self._flat()).float()

    def _flat(self) -> list[torch.Tensor]:
        return [parameter.detach().reshape(-1) for parameter in self._parameters.values()]

    @torch.no_grad()
    def update(self, skipped: torch.Tensor) -> None:
        """Takes the parameters in after a step; nothing waits for the device.

        Args:
            skipped: a scalar; where it is not 0 the step was skipped, and nothing is taken in. Nor are parameters that
                are not finite.
        """
        change = torch.cat(self._flat(), out=self._change)
        entered = (skipped == 0) & torch.isfinite(change.sum())
        # 1 - (1 + n) / (10 + n) = 9 / (10 + n), which float32 has without cancellation.
        share = torch.where(self._updates == 0, 1.0, (9 / (10 + self._updates)).clamp(min=1 - self._decay))
        change.sub_(self._average).mul_(share).masked_fill_(~entered, 0)
        self._average.add_(change)
        self._updates.add_(entered)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The parameters are the average; they are put back by copy."""
        kept = self._present()
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, numbers: torch.Tensor) -> None:
        parameters = list(self._parameters.values())
        for parameter, values in zip(parameters, numbers.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(values.view_as(parameter))

    def state(self) -> tuple[dict[str, torch.Tensor], int]:
        """The average by parameter name, and the number of updates."""
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        parts = zip(self._parameters.items(), self._average.split(sizes), strict=True)
        return {name: values.view_as(parameter) for (name, parameter), values in parts}, int(self._updates)

    def restore(self, averages: Mapping[str, torch.Tensor], updates: int) -> None:
        """Goes on from a `state`.

        Raises:
            ScionError: it is not of these parameters.
        """
        if {name: tensor.shape for name, tensor in averages.items()} != {
            name: parameter.shape for name, parameter in self._parameters.items()
        }:
            raise ScionError("the checkpoint holds no moving average of what this recipe trains; choose another folder")
        self._average.copy_(torch.cat([averages[name].reshape(-1) for name in self._parameters]))
        self._updates.fill_(updates)
