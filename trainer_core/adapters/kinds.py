"""The kinds of adapter that train, by name."""

from .kind import Kind
from .lycoris import Loha, Lokr
from .oft import Oft
from .pairs import Dora, Lora

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Lora(), Dora(), Loha(), Lokr(), Oft())}
