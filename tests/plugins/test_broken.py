"""Beside each broken plugin everything else works, and one line names the culprit."""

import json

import pytest

# Folder under broken/, entry-point name, and what the line must say.
CASES = [
    ("import_error", "import-error", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ("raise_in_hook", "raise-in-hook", "RuntimeError: the hook is broken"),
    ("raise_mid_generator", "raise-mid-generator", "KeyError: 'second'"),
    ("bad_spec", "spec", "not a ModelSpec"),
    ("unknown_hook", "unknown-hook", "did you mean 'flambeau_register_models'?"),
    ("duplicate_name", "mimic", "model 'healthy/net' is already registered by plugin 'healthy'"),
    ("alias_clash", "namesake", "alias 'thenet' of model 'namesake/other' clashes with 'healthy/net'"),
    ("old_api", "old-api", "written for plugin API 0"),
    ("exit_at_import", "z-exit", "it called sys.exit(3)"),
]
IDS = [case[0] for case in CASES]


@pytest.fixture(params=CASES, ids=IDS)
def case(request, site):
    folder, name, says = request.param
    site.add_broken("healthy")
    site.add_broken(folder, name)
    return folder, name, says


def test_help_works_and_one_line_names_the_culprit(site, case):
    _, name, says = case
    done = site.run("--help")
    assert done.returncode == 0, done.stderr
    assert "models" in done.stdout and "Commands:" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1, done.stderr
    assert repr(name) in lines[0] and f"example-{name} 1.0" in lines[0] and says in lines[0]
    assert "Traceback" not in done.stderr


def test_the_neighbour_is_listed(site, case):
    folder, _, _ = case
    done = site.run("models", "list", "--json")
    assert done.returncode == 0, done.stderr
    ids = [spec["id"] for spec in json.loads(done.stdout)]
    assert ids == (["healthy/net", "namesake/other"] if folder == "alias_clash" else ["healthy/net"])


def test_strict_makes_it_fatal(site, case):
    _, name, says = case
    done = site.run("--help", FLAMBEAU_PLUGIN_STRICT="1")
    assert done.returncode == 1
    assert "error: plugin " in done.stderr and repr(name) in done.stderr and says in done.stderr
    assert "Traceback" not in done.stderr


def test_check_reports_it(site, case):
    folder, name, says = case
    done = site.run("plugins", "--check", "--json")
    assert done.returncode == 1
    row = next(row for row in json.loads(done.stdout) if row["name"] == name)
    assert row["status"] == ("warning" if folder == "alias_clash" else "failed")
    assert any(says in problem for problem in row["problems"])


def test_switched_off_it_is_silent(site, case):
    _, name, _ = case
    done = site.run("--help", FLAMBEAU_DISABLE_PLUGINS=name)
    assert done.returncode == 0 and done.stderr == ""


def test_all_at_once(site):
    site.add_broken("healthy")
    for folder, name, _ in CASES:
        site.add_broken(folder, name)
    done = site.run("--help")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == len(CASES)
    for _, name, says in CASES:
        assert any(repr(name) in line and says in line for line in warnings)


def test_all_specs_of_a_plugin_that_fails_are_left_out(site):
    site.add_broken("raise_mid_generator")
    code = (
        "from flambeau.plugins import manager; m = manager(); m.report = print; print(len(m.specs('tasks')));"
        "m.specs('models'); print(len(m.specs('tasks')), len(m.specs('models')))"
    )
    first, line, last = site.python("-c", code, check=True).stdout.splitlines()
    assert (first, last) == ("1", "0 0") and "left out" in line


def test_an_ambiguous_alias_fails_where_it_is_used(site):
    site.add_broken("healthy")
    site.add_broken("alias_clash", "namesake")
    done = site.run("models", "info", "thenet")
    assert done.returncode == 2
    assert "error: model 'thenet' is ambiguous: healthy/net, namesake/other" in done.stderr


def test_completion_does_not_complain(site):
    site.add_broken("import_error")
    done = site.run(_FLAMBEAU_COMPLETE="bash_complete", COMP_WORDS="flambeau mod", COMP_CWORD="1")
    assert (done.stdout.strip(), done.stderr) == ("plain,models", "")


def test_what_a_plugin_prints_stays_out_of_the_results(site):
    site.add("chatty", "flambeau_chatty", "print('hello')\n")
    done = site.run("plugins", "--json")
    row = next(row for row in json.loads(done.stdout) if row["name"] == "chatty")
    assert row["status"] == "ok" and "hello" in done.stderr


def test_an_interrupt_is_not_swallowed(site):
    site.add("slow", "flambeau_slow", "raise KeyboardInterrupt\n")
    done = site.run("models", "list")
    assert done.returncode == 130 and "Traceback" not in done.stderr


def test_a_newer_api_asks_for_a_newer_core(site):
    site.add("future", "flambeau_future", "FLAMBEAU_API = 99\n")
    assert "plugin API 99, this flambeau has 1: upgrade flambeau-core" in site.run("--help").stderr


def test_an_unreadable_distribution_of_somebody_else_does_no_harm(site):
    site.add_broken("healthy")
    info = site.folder / "rotten-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"\xff\xfe[flambeau")
    (site.folder / "empty-1.0.dist-info").mkdir()
    done = site.run("models", "list")
    assert done.returncode == 0 and "healthy/net" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("text", ["[flambeau]\nbroken\n", "[flambeau]\nx = not a module\n", "[flambeau]\nx =\n"])
def test_a_broken_entry_point_is_reported(site, text):
    site.add("x", "flambeau_x", "")
    (site.folder / "example_x-1.0.dist-info" / "entry_points.txt").write_text(text)
    done = site.run("--help")
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_the_namesake_of_a_namespace_wins_over_a_squatter(site):
    site.add_broken("duplicate_name", "aaa")  # loaded before 'healthy'
    site.add_broken("healthy")
    done = site.run("models", "list", "--json")
    assert [(spec["id"], spec["plugin"]) for spec in json.loads(done.stdout)] == [("healthy/net", "healthy")]
    assert "plugin 'aaa' (example-aaa 1.0) left out: model 'healthy/net' belongs to plugin 'healthy'" in done.stderr
