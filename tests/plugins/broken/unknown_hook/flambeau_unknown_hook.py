from flambeau.plugins import hookimpl


@hookimpl
def flambeau_register_model():
    return []
