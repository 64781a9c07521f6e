"""train, evaluate and predict through a plugin's own trainer and task."""

import json
import re
import shutil

import pytest

POINTS = "0.5,0.5\n-0.5,0.1\n"


@pytest.fixture
def spiral(site, tmp_path):
    site.add_spiral()
    (tmp_path / "points.csv").write_text(POINTS)
    return lambda *args, **environment: site.run(*args, cwd=tmp_path, **environment)


@pytest.fixture
def trained(spiral, tmp_path):
    done = spiral("train", "spiral/rbf", "--set", "steps=2", "--seed", "3", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    return done


def test_train_evaluate_predict(spiral, trained, tmp_path):
    metrics = json.loads(trained.stdout)
    assert metrics["steps"] == 2 and metrics["last_loss"] > 0
    assert (tmp_path / "run" / "model.safetensors").is_file()

    done = spiral("evaluate", "run", "--data", "spiral/points")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^accuracy  0\.\d+$", done.stdout, re.M) and re.search(r"^points    300$", done.stdout, re.M)

    done = spiral("predict", "run/model.safetensors", "points.csv")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"points\.csv: \[[0-2], [0-2]\]\n", done.stdout)


def test_an_input_that_fails_does_not_stop_the_others(spiral, trained, tmp_path):
    (tmp_path / "text.csv").write_text("a,b\n")
    for flag in ("--json", "--jsonl"):
        done = spiral("predict", "run", "none.csv", "points.csv", "text.csv", flag)
        assert done.returncode == 1
        results = json.loads(done.stdout) if flag == "--json" else [json.loads(x) for x in done.stdout.splitlines()]
        assert [("error" in r, r["input"]) for r in results] == [
            (True, "none.csv"),
            (False, "points.csv"),
            (True, "text.csv"),
        ]
        lines = done.stderr.splitlines()
        assert (
            lines[:2] == ["error: none.csv: there is no file 'none.csv'", "  mend: check the name"] and len(lines) == 4
        )


def test_the_same_seed_gives_the_same_file(spiral, trained, tmp_path):
    spiral("train", "radial-basis", "--set", "steps=2", "--seed", "3", "--output", "again")
    spiral("train", "radial-basis", "--set", "steps=2", "--seed", "4", "--output", "other")
    first, again, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "again", "other"))
    assert first == again != other


def test_a_run_is_not_overwritten_but_resumed(spiral, trained, tmp_path):
    done = spiral("train", "spiral/rbf", "--set", "steps=2", "--output", "run")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: 'run' already holds files",
        "  mend: add --resume run, or name another --output",
    ]
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    done = spiral("train", "spiral/rbf", "--set", "steps=2", "--resume", "run")
    assert done.returncode == 0 and (tmp_path / "run" / "model.safetensors").read_bytes() != before


def test_a_toml_file_starts_a_run_and_its_folder_alone_resumes_it(spiral, tmp_path):
    (tmp_path / "run.toml").write_text('model = "spiral/rbf"\noutput = "run"\n[options]\nsteps = 3\nlr = 0.5\n')
    assert spiral("train", "--config", "run.toml", "--set", "steps=2").returncode == 0
    started = json.loads((tmp_path / "run" / "run.json").read_text())
    assert started["model"] == "spiral/rbf" and started["options"] == {"steps": 2, "lr": 0.5}
    done = spiral("train", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == started


@pytest.mark.parametrize(
    ("text", "cause", "mend"),
    [
        ('modle = "spiral/rbf"', "run.toml has an unknown key 'modle'", "did you mean 'model'?"),
        ('model = "spiral/rbf"\n[options]\nstpes = 1', "trainer 'spiral/steps' has no option 'stpes'", "'steps'"),
        ("[options]\nsteps = 1", "there is no MODEL", "models list"),
        ("model = ", "run.toml is not TOML", "mend the file"),
    ],
)
def test_wrong_toml(spiral, tmp_path, text, cause, mend):
    (tmp_path / "run.toml").write_text(text)
    done = spiral("train", "--config", "run.toml")
    lines = done.stderr.splitlines()
    assert done.returncode in (1, 2) and len(lines) == 2, done.stderr
    assert lines[0].startswith(f"error: {cause}") and mend in lines[1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "code", "cause", "mend"),
    [
        (["--set", "stpes=2"], 2, "trainer 'spiral/steps' has no option 'stpes'", "did you mean 'steps'?"),
        (["--epochs", "2"], 2, "trainer 'spiral/steps' has no option 'epochs'", ""),
        (["--set", "steps"], 2, "--set 'steps' is not KEY=VALUE", "write --set width=64"),
        (["--set", "steps=many"], 2, "option steps='many' is not int", "give steps a value of type int"),
        (["--set", "seed=1", "--seed", "1"], 2, "option 'seed' is given twice", "give it once"),
        (["--trainer", "spiral/step"], 2, "trainer 'spiral/step' is not registered", "did you mean 'spiral/steps'?"),
        (["--task", "pionts"], 2, "task 'pionts' is not registered", "did you mean 'spiral/points'?"),
        (["--resume", "nowhere"], 1, "run 'nowhere' does not exist", ""),
        (["--resume", ".", "--output", "x"], 2, "--resume goes on in its own folder", "leave --output out"),
    ],
)
def test_wrong_train(spiral, args, code, cause, mend, tmp_path):
    done = spiral("train", "spiral/rbf", *args)
    assert done.returncode == code and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {cause}" and mend in lines[1] and len(lines) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"points.csv", "site"}


@pytest.mark.parametrize(
    ("args", "code", "cause"),
    [
        (["predict", "spiral/rbf", "points.csv"], 1, "error: model 'spiral/rbf' has no trained weights"),
        (["evaluate", "spiral/rbf", "--data", "spiral/points"], 1, "error: model 'spiral/rbf' has no trained weights"),
        (["evaluate", "run", "--data", "spiral/piont"], 1, "error: 'spiral/piont' does not exist and is no dataset"),
        (["evaluate", "run", "--data", "nowhere"], 1, "error: 'nowhere' does not exist and is no dataset"),
        (["evaluate", "run", "--data", "spiral/points", "--split", "tset"], 2, "has no option 'tset'"),
        (["predict", "run"], 2, "error: missing argument 'INPUT...'"),
        (["predict", "run", "points.csv", "--json", "--jsonl"], 2, "error: --json and --jsonl exclude each other"),
        (["predict", "run", "points.csv", "--set", "x=1"], 2, "error: task 'spiral/points' has no option 'x'"),
    ],
)
def test_wrong_use(spiral, trained, args, code, cause):
    done = spiral(*args)
    assert done.returncode == code and done.stdout == ""
    assert cause in done.stderr.splitlines()[0] and "Traceback" not in done.stderr


def test_info_shows_the_options(spiral):
    done = spiral("trainers", "info", "steps")
    assert done.returncode == 0 and "steps=300, batch_size=64, lr=0.03, seed=0, centres=32" in done.stdout
    done = spiral("models", "info", "rbf", "--json")
    described = json.loads(done.stdout)
    assert described["options"] == {"inputs": 2, "centres": 32, "classes": 3}
    assert described["distribution"] == "flambeau-example-spiral" and described["parameters"] == 195


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_damaged_checkpoint(spiral, trained, tmp_path, cut):
    file = tmp_path / "run" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    done = spiral("predict", "run", "points.csv")
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "  mend: " in done.stderr and "model.safetensors" in done.stderr


def test_a_checkpoint_without_its_plugin_says_what_to_install(site, spiral, trained, tmp_path):
    shutil.rmtree(next(site.folder.glob("flambeau_example_spiral*.dist-info")))
    for command in (["predict", "run", "points.csv"], ["evaluate", "run", "--data", "points.csv"]):
        done = spiral(*command)
        assert done.returncode == 3 and done.stdout == ""
        assert done.stderr.splitlines() == [
            "error: 'spiral/rbf' comes from the package flambeau-example-spiral, which is not installed",
            "  mend: pip install flambeau-example-spiral",
        ]


def test_a_checkpoint_of_an_older_model(spiral, trained, site, tmp_path):
    source = (
        "import flambeau, sys; from flambeau.io import load_model_state, save_model_state;"
        "s, c = load_model_state('run/model.safetensors'); s.pop('log_widths');"
        "save_model_state(s, 'old.safetensors', model=c.model, config=c.config, plugin=c.plugin)"
    )
    site.python("-c", source, cwd=tmp_path, check=True)
    done = spiral("predict", "old.safetensors", "points.csv")
    assert done.returncode == 1 and "does not fit model 'spiral/rbf'" in done.stderr and "log_widths" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 2
