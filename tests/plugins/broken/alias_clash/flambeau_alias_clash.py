from flambeau.plugins import ModelSpec, hookimpl


@hookimpl
def flambeau_register_models():
    yield ModelSpec(id="namesake/other", factory="flambeau_alias_clash:Other", aliases=("thenet",))
