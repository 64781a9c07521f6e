"""A plugin with nothing wrong: the neighbour of every broken one."""

from flambeau.plugins import ModelSpec, hookimpl


@hookimpl
def flambeau_register_models():
    yield ModelSpec(id="healthy/net", factory="flambeau_healthy:Net", summary="A healthy model.", aliases=("thenet",))
