"""New words in a text encoder: vectors that train beside its own table of embeddings, which is never written to."""

import torch
import torch.nn.functional as F
from torch import nn

TABLE = "token_embedding"
"""What CLIP's text encoders call the table."""


class TokenEmbedding(nn.Module):
    """The table, and behind it the vectors of new words: of id -1 the first, of id -2 the second, and so on.

    Args:
        table: float [V, width]; frozen, and where it was.
        vectors: of each new word, by word, [n, width]; what trains is float32 copies of them.
    """

    def __init__(self, table: nn.Embedding, vectors: dict[str, torch.Tensor]):
        super().__init__()
        self.table = table
        self.names = list(vectors)
        place = table.weight.device
        copies = [rows.detach().to(place, torch.float32, copy=True) for rows in vectors.values()]
        self.new = nn.ParameterList(map(nn.Parameter, copies))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings in the table's precision, [..., width], of ids, int64 [...]."""
        known = F.embedding(ids.clamp(min=0), self.table.weight)
        new = F.embedding((-1 - ids).clamp(min=0), torch.cat(list(self.new)))
        return torch.where((ids < 0).unsqueeze(-1), new.to(known.dtype), known)


def table_of(encoder: nn.Module) -> nn.Embedding:
    """The table of a text encoder, whether it stands in its place or not."""
    found = _holder(encoder).get_submodule(TABLE)
    return found.table if isinstance(found, TokenEmbedding) else found


def put(encoder: nn.Module, vectors: dict[str, torch.Tensor]) -> None:
    """New words into a text encoder without any.

    Args:
        vectors: as for `TokenEmbedding`.
    """
    setattr(_holder(encoder), TABLE, TokenEmbedding(table_of(encoder), vectors))


def remove(encoder: nn.Module) -> None:
    """Takes new words out, if there are any: the very table that was there before stands in its place again."""
    if embedding(encoder):
        setattr(_holder(encoder), TABLE, table_of(encoder))


def embedding(module: nn.Module) -> TokenEmbedding | None:
    """What has the new words in a module; None if there are none."""
    return next((inner for inner in module.modules() if isinstance(inner, TokenEmbedding)), None)


def parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name: words.<word>, float32 [n, width]; empty where there are no new words."""
    found = embedding(module)
    return {f"words.{name}": rows for name, rows in zip(found.names, found.new, strict=True)} if found else {}


def extract(encoder: nn.Module) -> dict[str, torch.Tensor]:
    """The vectors of each new word, by word: float32 copies on the CPU."""
    found = embedding(encoder)
    return (
        {name: rows.detach().cpu().clone() for name, rows in zip(found.names, found.new, strict=True)} if found else {}
    )


def usual_length(table: nn.Embedding) -> float:
    """The mean Euclidean length of a table's rows."""
    return float(table.weight.detach().float().norm(dim=1).mean())


def _holder(encoder: nn.Module) -> nn.Module:
    """The module in a text encoder that has the table."""
    return next(module for module in encoder.modules() if hasattr(module, TABLE))
