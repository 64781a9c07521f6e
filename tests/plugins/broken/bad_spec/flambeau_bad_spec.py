from flambeau.plugins import hookimpl


@hookimpl
def flambeau_register_models():
    return [{"id": "bad/model", "factory": "somewhere:Model"}]
