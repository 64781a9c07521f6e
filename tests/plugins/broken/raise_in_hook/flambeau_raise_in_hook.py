from flambeau.plugins import hookimpl


@hookimpl
def flambeau_register_models():
    raise RuntimeError("the hook\nis broken")
