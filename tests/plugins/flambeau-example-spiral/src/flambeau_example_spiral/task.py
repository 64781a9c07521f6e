"""Evaluating and predicting."""

import flambeau
from flambeau.errors import FlambeauError
from flambeau.plugins import check_keys, create_dataset, load_model

from .points import read_points


def evaluate(model, data, split, options):
    check_keys(options, (), "task 'spiral/points'")
    spirals = create_dataset(data, root="", split=split)
    with flambeau.no_grad():
        arms = load_model(model)(flambeau.from_numpy(spirals.points)).argmax(1).numpy()
    return {"accuracy": float((arms == spirals.labels).mean()), "points": len(spirals)}


def predict(model, inputs, output, options):
    check_keys(options, (), "task 'spiral/points'")
    network = load_model(model)
    for source in inputs:
        try:
            points = read_points(source)
        except FlambeauError as error:
            yield {"input": source, "error": error.cause, "mend": error.mend}
            continue
        with flambeau.no_grad():
            yield {"input": source, "output": network(flambeau.from_numpy(points)).argmax(1).tolist()}
