"""The command line: exit codes, one line of cause and one of mend, suggestions, and what must not be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "PIL", "cupy", "matplotlib", "torch", "safetensors")


def flambeau(*args, cwd=None, stdin=None, **environment):
    """Runs ``flambeau`` without plugins, unless `environment` says otherwise."""
    env = {**os.environ, "FLAMBEAU_DISABLE_PLUGINS": "*", **environment}
    command = [sys.executable, "-m", "flambeau", *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, input=stdin, timeout=120)


def modules_after(args, **environment):
    """Heavy modules in sys.modules after a command."""
    code = (
        "import sys\nfrom flambeau.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as done:\n"
        f"    print([m for m in {HEAVY} if m in sys.modules], done.code or 0, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["models", "list"],
        ["models", "list", "--json"],
        ["datasets", "list"],
        ["tasks", "list"],
        ["trainers", "list"],
        ["plugins"],
        ["plugins", "--json"],
        ["completion", "bash"],
        ["train", "--help"],
        ["predict", "--help"],
        ["evaluate", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(args):
    """With all plugins of this environment."""
    assert modules_after(args) == "[] 0"


@pytest.mark.parametrize(
    "words", ["flambeau ", "flambeau tr", "flambeau models ", "flambeau train ", "flambeau models info "]
)
def test_completion_imports_nothing_heavy(words):
    asked = {"_FLAMBEAU_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert modules_after([], **asked).startswith("[]")


def test_completion_offers_commands():
    done = flambeau(_FLAMBEAU_COMPLETE="bash_complete", COMP_WORDS="flambeau m", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,models"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    done = flambeau("completion", shell)
    assert done.returncode == 0 and f"_FLAMBEAU_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "cause", "mend"),
    [
        (["modles"], 2, "there is no command 'modles'", "did you mean 'models'?"),
        (["qqqq"], 2, "there is no command 'qqqq'", "`flambeau --help` lists the commands"),
        (["models", "lits"], 2, "there is no command 'lits'", "did you mean 'list'?"),
        (["models", "list", "--jsn"], 2, "there is no option '--jsn'", "did you mean '--json'?"),
        (["--debgu"], 2, "there is no option '--debgu'", "did you mean '--debug'?"),
        (["models", "info"], 2, "missing argument 'NAME'", "`flambeau models info --help` shows the usage"),
        (["models", "info", "x"], 2, "model 'x' is not registered", "`flambeau models list` shows what is there"),
        (
            ["models", "info", "lab/x"],
            3,
            "no installed plugin provides 'lab'",
            "install the package that provides 'lab'",
        ),
        (["train", "vision/x"], 3, "'vision/x'", ""),
        (["train", "x", "--epochs", "0"], 2, "invalid value for '--epochs'", ""),
        (["train", "x", "--lr", "fast"], 2, "invalid value for '--lr'", ""),
        (["predict", "no.safetensors", "x"], 1, "'no.safetensors' does not exist", "pass a .safetensors file"),
        (["predict", "./nowhere", "x"], 1, "'./nowhere' does not exist", "pass a .safetensors file"),
        (["predict", "."], 2, "missing argument 'INPUT...'", ""),
        (["predict", ".", "x"], 1, "'.' holds no checkpoint", "model.safetensors in it"),
        (["evaluate", "x"], 2, "missing option '--data'", ""),
        (["completion", "tcsh"], 2, "'tcsh' is not one of", ""),
        (["plugins", "new", "Not A Name"], 2, "'Not A Name' is not a name for a package", ""),
        (["plugins", "new", "vision"], 2, "'vision' is Flambeau's own", ""),
        (["plugins", "new", "json"], 2, "'json' is a word or module of Python", "flambeau-json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use(args, code, cause, mend, tmp_path):
    done = flambeau(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ") and cause in lines[0]
    assert len(lines) <= 2 and all(line.startswith("  mend: ") for line in lines[1:])
    assert mend in "".join(lines[1:])
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_alone_and_in_groups():
    assert flambeau().stdout == flambeau("--help").stdout == flambeau("-h").stdout
    done = flambeau("models")
    assert done.returncode == 0 and "info" in done.stdout and done.stderr == ""


def test_every_built_in_command_has_help_and_is_reserved():
    from flambeau.cli.root import _BUILT_IN
    from flambeau.plugins.registry import BUILT_IN_COMMANDS

    assert set(_BUILT_IN) <= BUILT_IN_COMMANDS
    for name in _BUILT_IN:
        done = flambeau(name, "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"Usage: flambeau {name}"), done.stderr


def test_the_help_line_is_the_commands_own():
    """The listing does not import the commands, so their help lines stand in it a second time."""
    from flambeau.cli.root import _BUILT_IN
    from flambeau.plugins import resolve

    for name, (path, summary) in _BUILT_IN.items():
        assert resolve(path).name == name and summary.endswith("."), name


def test_version():
    done = flambeau("--version")
    assert done.returncode == 0 and done.stdout.startswith("flambeau ")


@pytest.mark.parametrize("where", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(where):
    args = ["models", "info", "x"]
    args.insert(where, "--debug")
    done = flambeau(*args)
    assert done.returncode == 2 and "Traceback" in done.stderr and "error: model 'x' is not registered" in done.stderr


def test_debug_by_environment():
    assert "Traceback" in flambeau("models", "info", "x", FLAMBEAU_DEBUG="1").stderr
    assert "Traceback" not in flambeau("models", "info", "x", FLAMBEAU_DEBUG="0").stderr


def test_debug_after_two_dashes_is_an_input():
    from flambeau.cli.run import _take_debug

    assert _take_debug(["predict", "--", "--debug"]) == (["predict", "--", "--debug"], False)


def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(
        [sys.executable, "-m", "flambeau", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)


@pytest.mark.parametrize(
    ("body", "code", "cause", "mend"),
    [
        ("raise ValueError('two\\nlines')", 1, "ValueError: two lines", "--debug"),
        ("raise FlambeauError('no', 'do', 4)", 4, "no", "do"),
        (
            "raise DeviceUnavailableError('there is no CUDA device', 'use --device cpu')",
            4,
            "there is no CUDA device",
            "cpu",
        ),
        ("raise MissingExtraError('no plot', 'pip install x')", 3, "no plot", "pip install x"),
        ("import no_such_module", 3, "the module 'no_such_module' is not installed", "no_such_module"),
        ("open('/no/such/file')", 1, "'/no/such/file': No such file or directory", "check the path"),
        ("raise click.UsageError('Both.')", 2, "both", "`app --help` shows the usage"),
        ("raise click.ClickException('Bad')", 1, "Bad", ""),
        ("raise KeyboardInterrupt", 130, "interrupted", ""),
        ("raise EOFError", 1, "aborted", ""),
        ("raise click.Abort", 1, "aborted", ""),
        ("click.get_current_context().exit(7)", 7, None, ""),
        ("return 5", 5, None, ""),
        ("return True", 0, None, ""),
        ("raise SystemExit(6)", 6, None, ""),
        ("return {'loss': 1}", 0, None, ""),
    ],
)
def test_run_turns_errors_into_lines_and_codes(body, code, cause, mend, tmp_path):
    """`flambeau.cli.run` is what applications call."""
    script = tmp_path / "app.py"
    script.write_text(
        "import click\nfrom flambeau.cli import run\n"
        "from flambeau.errors import DeviceUnavailableError, FlambeauError, MissingExtraError\n"
        f"@click.command()\ndef app():\n    {body}\nrun(app, [], 'app')\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    if cause is None:
        assert lines == []
    else:
        assert lines[0] == f"error: {cause}"
        assert (mend in lines[1]) if mend else len(lines) == 1


def test_listing_without_plugins_says_what_to_install():
    done = flambeau("models", "list")
    assert (done.returncode, done.stdout) == (0, "") and "pip install" in done.stderr
    assert json.loads(flambeau("models", "list", "--json").stdout) == []


def test_plugins_new_writes_a_package_once(tmp_path):
    done = flambeau("plugins", "new", "flambeau-lab", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "flambeau-lab\n"
    package = tmp_path / "flambeau-lab"
    for name in (
        "pyproject.toml",
        "README.md",
        "src/flambeau_lab/_plugin.py",
        "tests/test_plugin.py",
        "examples/rows.csv",
    ):
        text = (package / name).read_text(encoding="utf-8")
        assert text and "$" not in text, name
    for source in package.rglob("*.py"):
        compile(source.read_text(encoding="utf-8"), str(source), "exec")
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    again = flambeau("plugins", "new", "flambeau-lab", cwd=tmp_path)
    assert again.returncode == 1 and "exists and is not an empty folder" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in package.rglob("*")}


def test_plugins_new_into_a_given_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert flambeau("plugins", "new", "lab", "--directory", str(tmp_path / "empty")).returncode == 0
    assert (tmp_path / "empty" / "src" / "lab" / "_plugin.py").is_file()
    (tmp_path / "file").write_text("")
    assert flambeau("plugins", "new", "lab", "--directory", str(tmp_path / "file")).returncode in (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_plugins_new_where_nobody_may_write(tmp_path):
    tmp_path.chmod(0o500)
    done = flambeau("plugins", "new", "lab", cwd=tmp_path)
    tmp_path.chmod(0o700)
    assert done.returncode == 1 and "Permission denied" in done.stderr and "Traceback" not in done.stderr


def test_python_m_and_the_script_are_the_same():
    script = Path(sys.executable).with_name("flambeau")
    if not script.exists():
        pytest.skip("the package is not installed here")
    done = subprocess.run([script, "models", "lits"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, flambeau("models", "lits").stderr)
