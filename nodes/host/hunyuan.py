"""HunyuanDiT's captions in the host: cut to the lengths that the model reads, which the host leaves to who writes."""

import logging

from ...trainer_core.families.hunyuan_dit import TOKENS, TOKENS_T5

log = logging.getLogger("scion")

READ = {"hydit_clip": (TOKENS, 102, "first"), "mt5xl": (TOKENS_T5, 1, "second")}
"""By the host's name of a text encoder: so many tokens are read, the token that ends them, and which encoder it is."""


def cut(tokens: dict[str, list], caption: str) -> dict[str, list]:
    """Tokens as the host's tokenizer gives them, [[(id, weight), …]], each encoder's in one window; those of other
    families as they are. A caption that is cut is said."""
    found = dict(tokens)
    for name, (length, end, which) in READ.items():
        if name not in tokens:
            continue
        # The host frames every window of a long caption; what is cut off needs no frame.
        window = tokens[name][0]
        if len(window) > length:
            log.warning(
                "caption %r: the %s text encoder of HunyuanDiT reads %d tokens, the rest does not train",
                f"{caption[:60]}…",
                which,
                length,
            )
            window = [*window[: length - 1], (end, 1.0)]
        found[name] = [window]
    return found
