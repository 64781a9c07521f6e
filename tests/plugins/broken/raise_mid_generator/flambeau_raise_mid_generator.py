from flambeau.plugins import ModelSpec, TaskSpec, hookimpl


@hookimpl
def flambeau_register_tasks():
    yield TaskSpec(id="mid/task", summary="Fine in itself.")


@hookimpl
def flambeau_register_models():
    yield ModelSpec(id="mid/first", factory="flambeau_raise_mid_generator:First")
    raise KeyError("second")
