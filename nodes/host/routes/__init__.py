"""What the host's server answers for us. Runs and datasets are asked for by id and name, never by a path."""

from server import PromptServer

from . import datasets, runs, settings


def register() -> None:
    """Adds the routes to the host's server, once."""
    server = getattr(PromptServer, "instance", None)
    if server is None:  # the host's code is used without its server
        return
    runs.register(server.routes)
    datasets.register(server.routes)
    settings.register(server.routes)
