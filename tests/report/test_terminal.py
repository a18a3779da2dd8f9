"""What people see in a terminal, in a log, and at a command's end."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings

import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

import ravine
from ravine import VERSION
from ravine.app import cli
from ravine.engine.loop.progress import Progress
from ravine.terminal import Field, browse, fitted, sparkline
from ravine.training.progress_bar import Course
from terminals import in_terminals

SHORT = ["train", "--set", "model.kind=mlp", "--epochs", "12", "--set", "threads=1"]
FIELD = (
    r"epoch [\d.]+/\d+|[━─]+|\d+ %|loss [\d.]+|[▁▂▃▄▅▆▇█]+|val loss [\d.]+|val acc [\d.]+ %"
    r"|[\d,.]+ step/s(?: x \d)?|(?:\d+ (?:h|min) )?[\d.]+ (?:s|min) left"
)


PICTURES = {
    60: [*SHORT, "--out", "run"],
    80: [*SHORT, "--out", "run"],
    120: [*SHORT, "--seeds", "3", "--out", "run"],
    "summary": ["summary", "--set", "threads=1"],
    "findings": [*SHORT, "--set", "optimizer.lr=1e-7", "--epochs", "1", "--out", "run"],
}


@pytest.fixture(scope="module")
def terminals(tmp_path_factory):
    """What each of these commands writes to a terminal that is so wide, else to one of 60 columns."""
    wanted = [
        (name if isinstance(name, int) else 60, arguments, tmp_path_factory.mktemp(f"at{name}"))
        for name, arguments in PICTURES.items()
    ]
    return {name: lines for name, (lines, _) in zip(PICTURES, in_terminals(wanted), strict=True)}


@pytest.mark.parametrize(("columns", "seeds"), [(60, 1), (80, 1), (120, 3)])
def test_a_terminal_shows_whole_fields_in_one_line(columns, seeds, terminals):
    lines = terminals[columns]
    assert lines[0] == "loading PyTorch …"
    frames = [line for line in lines if line.startswith("epoch ")]
    assert len(frames) > 1
    for line in frames:
        assert cell_len(line) < columns
        assert all(re.fullmatch(FIELD, field) for field in line.rstrip().split("  ")), line
    assert frames[-1].startswith("epoch 12/12")
    assert "val acc" in frames[-1]
    leaders = [line for line in lines if line.startswith("Validation accuracy:")]
    assert bool(leaders) == (seeds > 1)
    assert all(re.search(r"seed=\d [\d.]+ %$", line.rstrip()) for line in leaders)
    assert "member" not in "".join(lines) or seeds > 1
    assert not any("execution" in line or "one by one" in line for line in lines)
    assert lines[-1] == "report: run/report.html"


def test_something_is_said_before_anything_heavy_is_imported(tmp_path):
    """By the order of events, not by a clock: when the message is out, nothing has been loaded."""
    code = "import sys; sys.argv = ['ravine', 'summary']\nfrom ravine.__main__ import main\n"
    code += "class E:\n  def write(self, text):\n    if 'loading' in text: print(sorted(sys.modules), flush=True); sys.exit()\n"
    code += "  def flush(self): pass\nsys.stderr = E()\nmain()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'ravine.__main__'" in said.stdout
    assert not any(f"'{heavy}'" in said.stdout for heavy in ("torch", "numpy", "typer", "pandas"))


def test_a_log_has_a_line_every_ten_per_cent(tmp_path):
    said = CliRunner().invoke(cli.app, [*SHORT, "--epochs", "20", "--out", str(tmp_path / "run")])
    assert said.exit_code == 0
    lines = [line for line in said.stderr.splitlines() if line.startswith("epoch ")]
    parts = [int(re.search(r"  (\d+) %", line)[1]) // 10 for line in lines]
    assert parts == sorted(set(parts))
    assert parts[-1] == 10
    assert set(range(1, 11)) <= set(parts)
    assert "\x1b" not in said.stderr
    assert "\r" not in said.stderr


def test_fields_are_left_out_by_their_worth():
    fields = [Field("aaaa", 1), Field("bb", 3), Field("cccc", 2)]
    assert [f.text for f in fitted(fields, 14)] == ["aaaa", "bb", "cccc"]
    assert [f.text for f in fitted(fields, 13)] == ["bb", "cccc"]
    assert [f.text for f in fitted(fields, 7)] == ["bb"]
    assert fitted(fields, 1) == []


def test_a_curve_of_blocks_passes_over_what_is_not_finite():
    assert sparkline([3, math.nan, 2, math.inf, 1]) == "█▅▁"  # 3.5 eighths
    assert sparkline([2, 2, 2]) == "▁▁▁"
    assert sparkline([1]) == "" == sparkline([])
    assert len(sparkline(range(1000), 12)) == 12


def test_the_history_of_a_long_run_stays_short_and_keeps_its_beginning():
    course = Course()
    for step in range(5000):
        course.add(Progress(step + 1, 5000, 10, 1, 9.0, {"loss": float(step)}))
    assert len(course.losses) <= 241
    assert course.losses[0] == 0.0
    gaps = {b - a for a, b in zip(course.losses, course.losses[1:], strict=False)}
    assert len(gaps) == 1  # evenly spaced


def test_a_warning_is_shown_once(monkeypatch):
    def complain():
        """Warn."""
        for _ in range(6):
            warnings.warn("columns left out: id", stacklevel=1)
            warnings.resetwarnings()

    monkeypatch.setattr(cli, "app", cli.typer.Typer())
    cli.command(complain)
    said = CliRunner().invoke(cli.app, []).stderr
    assert said.count("columns left out: id") == 1


def test_the_version_and_the_groups_of_commands():
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"ravine {VERSION}\n"
    help_ = CliRunner().invoke(cli.app, ["--help"]).stdout
    assert all(group in help_ for group in cli.GROUPS)
    named = [name for names in cli.GROUPS.values() for name in names]
    known = {command.name for command in cli.app.registered_commands}
    assert set(named) - {name.replace("_", "-") for name in named} - known == set()
    assert {name.replace("_", "-") for name in named} <= known


def test_a_finished_run_is_not_resumed_and_says_so(tmp_path):
    run = str(tmp_path / "run")
    runner = CliRunner()
    assert runner.invoke(cli.app, [*SHORT, "--epochs", "1", "--out", run]).exit_code == 0
    said = runner.invoke(cli.app, ["resume", run]).stderr
    assert "is finished" in said
    assert "nothing was trained" in said
    assert "epoch 0" not in said
    assert f"wrote {run}/report.html" in runner.invoke(cli.app, ["report", run]).stdout
    exported = runner.invoke(cli.app, ["export", run]).stderr
    assert f"wrote {run}/export: " in exported
    assert "model.safetensors" in exported
    verbose = runner.invoke(cli.app, [*SHORT, "--epochs", "1", "--verbose"]).stderr
    assert "Computed on: cpu" in verbose


def test_the_summary_is_in_the_order_of_the_network(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = CliRunner().invoke(cli.app, ["summary"], env={"COLUMNS": "80"})
    rows = [line.split() for line in said.stderr.splitlines()]
    names = [row[0] for row in rows if row and row[0].isdigit() and len(row) > 4]
    assert names == sorted(names, key=int)
    assert len(names) == 14
    assert "BatchNorm2d" in said.stderr
    assert "receptive_field" not in said.stderr


def test_a_finding_is_explained_offline():
    said = CliRunner().invoke(cli.app, ["catalogue", "too_few_epochs"])
    assert said.exit_code == 0
    assert "What to do:" in said.stderr


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_help_cuts_no_word(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    whole = typer.main.get_command(cli.app)
    shown = {}
    for name, command in whole.commands.items():
        with whole.context_class(command, info_name=name) as context:
            print(command.get_help(context))
        shown[name] = capsys.readouterr().out
        assert max(map(cell_len, shown[name].splitlines())) <= int(columns)
        # an ellipsis of ours follows a space, or a comma in a list
        assert not re.search(r"\w…", shown[name]), shown[name]
    for text in ("optimizer.lr=0.01", "--no-baselines", "@ravine.technique"):
        assert text in shown["train"]


def test_tables_and_sentences_of_a_narrow_terminal_keep_words_whole(terminals):
    lines = terminals["summary"]
    assert all(cell_len(line) <= 60 for line in lines)
    text = "\n".join(lines)
    for whole in ("weights", "receptive", "1,179,648", "32×8×8", "BatchNorm2d", "trainable"):
        assert whole in text
    lines = terminals["findings"]
    said = lines[next(i for i, line in enumerate(lines) if line.startswith("Test acc")) :]
    assert all(cell_len(line) <= 60 for line in said)
    words = set(" ".join(said).split())
    assert {"validation", "report:", "run/report.html"} <= words


def test_the_report_opens_in_the_browser(tmp_path, monkeypatch):
    run, opened = tmp_path / "run", []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    short = ["train", "--set", "model=softmax", "--epochs", "1", "--no-doctor", "--quiet"]
    for words in ([*short, "--out", str(run)], ["resume", str(run)], ["report", str(run)]):
        said = CliRunner().invoke(cli.app, [*words, "--open"])
        assert said.exit_code == 0, said.output
    assert ravine.Run(run).open() == run / "report.html"
    assert opened == 4 * [(run / "report.html").resolve().as_uri()]


def test_without_a_browser_the_reports_place_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    browse(tmp_path / "report.html")
    assert (tmp_path / "report.html").as_uri() in capsys.readouterr().err.replace("\n", "")
