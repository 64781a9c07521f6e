"""Tables: reading, encoding, learning, and what is refused."""

import csv
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flambeau
from flambeau.errors import FlambeauError, UsageError
from flambeau.plugins import create_dataset, load_model
from flambeau.testing import ModelConformance, PluginConformance, TrainerConformance
from flambeau_science.tables import Schema, fit_schema, read_csv, read_split
from flambeau_science.tasks import tabular as task
from flambeau_science.trainers import tabular as trainer


def write(path, columns, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def write_regression(folder, count=300):
    """y = 100 + 30 a - 20 [colour is red]; b is noise."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        a, b, colour = rng.normal(5, 2), rng.normal(), rng.choice(["red", "blue", "green"])
        rows.append([f"{a:.6f}", f"{b:.6f}", colour, f"{100 + 30 * a - 20 * (colour == 'red'):.6f}"])
    return write(folder / "prices.csv", ["a", "b", "colour", "y"], rows)


def write_classes(folder, count=300):
    """The class says on which side of a circle (x, y) lies."""
    points = np.random.default_rng(0).normal(size=(count, 2))
    rows = [[x, y, "in" if x * x + y * y < 1.2 else "out"] for x, y in points]
    return write(folder / "circle.csv", ["x", "y", "side"], rows)


class TestPlugin(PluginConformance):
    plugin = "science"


class TestMLP(ModelConformance):
    model = "science/mlp"
    config = {"features": 3, "outputs": 2, "hidden": (5,)}
    output_shape = (4, 2)

    def inputs(self):
        return (flambeau.randn(4, 3),)


class TestTabular(TrainerConformance):
    model, trainer = "science/mlp", "science/tabular"
    options = {"epochs": 2, "hidden": [8], "seed": 1}

    def data(self, folder):
        return write_regression(folder, 60)


def test_regression_is_learnt(tmp_path):
    data = write_regression(tmp_path)
    options = {"epochs": 60, "lr": 0.01, "batch_size": 32, "dropout": 0.0, "hidden": [32]}
    metrics = trainer.train("science/mlp", data, str(tmp_path / "run"), options, False)
    assert (metrics["target"], metrics["kind"]) == ("y", "regression")
    scores = task.evaluate(str(tmp_path / "run"), data, "test", {})
    assert scores["rows"] == 30
    assert scores["r2"] > 0.99
    assert scores["mae"] < 6  # the unit is that of y, whose spread is 60


def test_classification_is_learnt(tmp_path):
    data = write_classes(tmp_path, 600)
    options = {"epochs": 40, "lr": 0.01, "dropout": 0.0}
    metrics = trainer.train("science/mlp", data, str(tmp_path / "run"), options, False)
    assert metrics["kind"] == "classification"
    scores = task.evaluate(str(tmp_path / "run"), data, "test", {})
    assert scores["accuracy"] > 0.9
    assert scores["roc_auc"] > 0.97
    (record,) = task.predict(str(tmp_path / "run"), [data], str(tmp_path / "out.csv"), {})
    table = read_csv(record["path"])
    guessed = [a == b for a, b in zip(table.texts("side"), table.texts("predicted_side"), strict=True)]
    assert np.mean(guessed) > 0.9
    assert record["output"]["classes"]["in"] == table.texts("predicted_side").count("in")
    sums = table.values("probability_in") + table.values("probability_out")
    assert sums == pytest.approx(1, abs=1e-4)


def test_the_area_under_the_curve_is_a_count_of_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 10, 80) / 10, rng.integers(0, 2, 80)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive == 1] for b in scores[positive == 0]]
    assert task.roc_auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_splits_share_no_row_and_miss_none(tmp_path):
    data = write_regression(tmp_path, 57)
    numbers = [read_split(data, split, 3).numbers for split in ("train", "val", "test")]
    assert [len(part) for part in numbers] == [47, 5, 5]
    assert sorted(sum(numbers, ())) == list(range(1, 58))
    assert read_split(data, "train", 3).numbers != read_split(data, "train", 4).numbers
    assert len(read_split(data, "all")) == 57


def test_a_folder_with_a_file_for_each_split(tmp_path):
    table = read_csv(write_regression(tmp_path))
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("train", table.rows[:200]), ("val", table.rows[200:])):
        write(folder / f"{split}.csv", table.columns, rows)
    assert len(create_dataset("science/csv", str(folder), "val")) == 100
    with pytest.raises(FlambeauError, match=r"there is no test\.csv"):
        read_split(folder, "test")


def test_only_training_rows_shape_the_schema(tmp_path):
    data = write_regression(tmp_path)
    schema = create_dataset("science/csv", data, "test").schema
    values = read_split(data, "train").values("a")
    assert schema.mean[0] == pytest.approx(values.mean())
    inputs = create_dataset("science/csv", data, "train").inputs
    assert inputs[:, :2].mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert inputs[:, :2].std(0) == pytest.approx([1, 1], abs=1e-5)
    assert schema.levels == {"colour": ["blue", "green", "red"]}
    assert (inputs[:, 2:].sum(1) == 1).all()
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["1.5", "2", "3"], "regression"), (["0", "1", "1"], "classification"), (["yes", "no", "no"], "classification"),
     ([str(n) for n in range(30)], "regression"), (["0", "1", ""], "classification")],
)  # fmt: skip
def test_the_kind_of_a_target(tmp_path, values, kind):
    table = read_csv(write(tmp_path / "a.csv", ["x", "t"], [[n, value] for n, value in enumerate(values)]))
    assert fit_schema(table.without_missing(["t"])).kind == kind


def test_classes_of_numbers_are_in_numeric_order(tmp_path):
    table = read_csv(write(tmp_path / "a.csv", ["x", "t"], [[n, n % 11] for n in range(30)]))
    assert fit_schema(table, kind="classification").classes == tuple(map(str, range(11)))


def test_a_constant_column_becomes_zeros(tmp_path):
    table = read_csv(write(tmp_path / "a.csv", ["x", "c", "t"], [[n, 7, n * 1.5] for n in range(5)]))
    assert (fit_schema(table).encode(table)[:, 1] == 0).all()


def refuses(match, table, **options):
    with pytest.raises(FlambeauError, match=match) as error:
        fit_schema(table, **options)
    return error.value.mend


def test_what_a_schema_refuses(tmp_path):
    rows = [[n, f"name{n}", "same", n * 1.5] for n in range(60)]
    table = read_csv(write(tmp_path / "a.csv", ["size", "name", "flat", "price"], rows))
    assert "price" in refuses("no column 'prise'", table, target="prise")
    assert "size" in refuses("no column 'sise'", table, ignore=["sise"])
    assert "ignore=name" in refuses("'name' has 60 different values", table)
    refuses("the target 'flat' is always 'same'", table, target="flat", ignore=["name"])
    refuses("no column is left", table, ignore=["size", "name", "flat"])


@pytest.mark.parametrize("field", ["", "NaN", "NA", "inf"])
def test_a_missing_or_infinite_value_is_refused_with_its_row(tmp_path, field):
    rows = [[n, n * 1.5] for n in range(20)]
    rows[13][0] = field
    table = read_csv(write(tmp_path / "a.csv", ["x", "y"], rows))
    assert "missing=drop" in refuses("row 14, column 'x' is", table)
    rows[13] = [1, field]
    refuses("row 14, column 'y' is", read_csv(write(tmp_path / "a.csv", ["x", "y"], rows)))


def test_rows_with_missing_values_are_left_out_when_asked(tmp_path, capfd):
    table = read_csv(write_regression(tmp_path))
    rows = [list(row) for row in table.rows]
    for row in rows[:40]:
        row[0] = "?"
    data = write(tmp_path / "b.csv", table.columns, rows)
    with pytest.raises(FlambeauError, match=r"row \d+, column 'a' is missing"):
        trainer.train("science/mlp", data, str(tmp_path / "run"), {}, False)
    assert not (tmp_path / "run").exists()
    metrics = trainer.train("science/mlp", data, str(tmp_path / "run"), {"epochs": 1, "missing": "drop"}, False)
    assert f"{metrics['rows_dropped']} rows with missing values are left out" in capfd.readouterr().err
    scores = task.evaluate(str(tmp_path / "run"), data, "all", {"missing": "drop"})
    assert (scores["rows"], scores["rows_dropped"]) == (260, 40)
    records = list(task.predict(str(tmp_path / "run"), [data, str(tmp_path / "no.csv")], None, {}))
    assert "row 1, column 'a' is missing" in records[0]["error"]
    assert "no such file" in records[1]["error"]
    (record,) = task.predict(str(tmp_path / "run"), [data], None, {"missing": "drop"})
    assert (record["output"]["rows"], record["output"]["rows_dropped"]) == (260, 40)


def test_predicting_needs_the_columns_but_not_the_target(tmp_path):
    data = write_regression(tmp_path)
    trainer.train("science/mlp", data, str(tmp_path / "run"), {"epochs": 1}, False)
    ready = write(tmp_path / "new.csv", ["colour", "b", "a"], [["red", 1, 2], ["violet", 0, 3]])
    (record,) = task.predict(str(tmp_path / "run"), [ready], None, {})
    assert record["output"]["unseen_values"] == 1
    absent = write(tmp_path / "other.csv", ["a", "colour"], [[1, "red"]])
    (record,) = task.predict(str(tmp_path / "run"), [absent], None, {})
    assert "no column 'b'" in record["error"]
    with pytest.raises(FlambeauError, match="no column 'y'"):
        task.evaluate(str(tmp_path / "run"), ready, "all", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"a,b\n", "no rows"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b"a,b\n1,2\n3\n", "row 2 has 1 fields"),
        (b"a,b\n\xff\xfe\n", "not UTF-8"),
        (b'a,b\n1,"2\n', "cannot be read as CSV"),
        (gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-12], "cannot be read as CSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(FlambeauError, match=message):
        read_csv(path)


def test_gzip_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\ufeffa,b\r\n1,é\r\n".encode()))
    table = read_csv(path)
    assert (table.columns, table.rows) == (("a", "b"), (("1", "é"),))


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6, allow_nan=False), st.sampled_from(["u", "v w", 'q"x', "a,b"])),
        min_size=4, max_size=30,
    )
)  # fmt: skip
def test_any_table_survives_being_written_and_encoded(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", ["x", "s", "t"], [[*row, n] for n, row in enumerate(rows)])
    table = read_csv(path)
    assert [(float(x), s) for x, s, _ in table.rows] == rows
    schema = fit_schema(table, kind="regression")
    inputs = schema.encode(table)
    assert inputs.shape == (len(rows), schema.features)
    assert np.isfinite(inputs).all()


def test_from_training_to_prediction_as_typed(tmp_path):
    data = write_classes(tmp_path)

    def run(*arguments, code=0):
        command = [sys.executable, "-m", "flambeau", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    out, _ = run("train", "science/mlp", "--data", data, "--epochs", 2, "--output", "run", "--json")
    assert json.loads(out)["target"] == "side"
    out, _ = run("evaluate", "run", "--data", data, "--json")
    assert 0 <= json.loads(out)["accuracy"] <= 1
    out, _ = run("predict", "run", data, "-o", "out.csv", "--json")
    assert json.loads(out)[0]["output"]["rows"] == 300
    assert (tmp_path / "out.csv").is_file()
    _, err = run("train", "science/mlp", "--data", data, "--set", "targett=x", "--output", "new", code=2)
    assert "did you mean 'target'" in err
    _, err = run("train", "science/mlp", "--data", data, "--set", "target=sid", "--output", "new", code=1)
    assert "no column 'sid'" in err
    assert not (tmp_path / "new").exists()


def test_pulsars(real_data, tmp_path):
    data = str(real_data("17_astronomy/htru2/HTRU_2.csv.gz"))
    trainer.train("science/mlp", data, str(tmp_path / "run"), {"epochs": 2, "batch_size": 128}, False)
    scores = task.evaluate(str(tmp_path / "run"), data, "test", {})
    assert scores["accuracy"] > 0.97  # always "no pulsar" would be 0.91
    assert scores["roc_auc"] > 0.95


def test_customers(real_data):
    table = read_csv(real_data("18_finance/telco_churn/Telco-Customer-Churn.csv.gz"))
    with pytest.raises(FlambeauError, match="row 489, column 'TotalCharges' is missing"):
        fit_schema(table, ignore=["customerID"])
    whole = table.without_missing(table.columns)
    assert len(table) - len(whole) == 11
    assert fit_schema(whole, ignore=["customerID"]).classes == ("No", "Yes")


def test_a_network_that_reads_no_tables(tmp_path):
    from flambeau.plugins import create_model, save_model

    path = save_model(create_model("science/mlp", features=2), tmp_path, "science/mlp", {"features": 2})
    assert load_model(path).schema is None
    with pytest.raises(FlambeauError, match="reads no tables"):
        task.evaluate(str(path), "x.csv", "test", {})
    with pytest.raises(UsageError, match="no split 'tset'"):
        read_split(write_classes(tmp_path), "tset")
