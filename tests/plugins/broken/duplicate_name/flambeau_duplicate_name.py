from flambeau.plugins import ModelSpec, hookimpl


@hookimpl
def flambeau_register_models():
    yield ModelSpec(id="mimic/net", factory="flambeau_duplicate_name:Net")
    yield ModelSpec(id="healthy/net", factory="flambeau_duplicate_name:Net")
