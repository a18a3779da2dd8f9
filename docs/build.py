"""Write docs/catalogue, a page for each kind of technique from docstrings and signatures and a
figure for each technique, and the list of findings in docs/doctor.md from their declarations.

``python docs/build.py`` writes pages and figures; ``--pages`` the pages alone; names
(``optimizer``, ``optimizer.adam``, ``picture`` for the README's) draw only those figures. Pages are
a function of the sources, and tests/project/test_docs.py compares them; figures are not compared, since
their bytes depend on the drawing library's version.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import ravine
from ravine.catalogue import COMMON, FILES, Part, Technique, table
from ravine.catalogue.reference import Row, markdown, rows
from ravine.gallery import collection as gallery
from ravine.recipe import Recipe

PAGES = Path(__file__).parent / "catalogue"
GALLERY = Path(__file__).parent / "gallery"
GALLERY_HEAD = """# The gallery

What lectures say of training, each claim by a live run: a short script on the public interface, a figure, and numbers
that the script checks over several seeds. `ravine gallery` runs all, `ravine gallery NAME` one, `--quick` the same
claims at smaller sizes, `--list` says what there is. A claim that is false on your machine ends with exit code 1, and
its line says what was seen. `tests/project/test_gallery_items.py -m '' -k NAME` holds each in quick mode.
"""
DOCTOR = Path(__file__).parent / "doctor.md"
API_PAGE = Path(__file__).parent / "api.md"
COUNTS = Path(__file__).parent / "reliability.json"
RELIABILITY = COUNTS.with_suffix(".md")
RELIABILITY_HEAD = """# Reliability

What Ravine promises of runs, studies and files that others made, how each promise is tried, and how many trials passed.
`make promises` runs all matrices (some hours of two cores), stores the counts in `docs/reliability.json` and writes this
page from them; `make test` runs a few of each. **Counted are the parts that were run**, which stand in brackets: a part of
the matrices of disks is every 16th file operation, of damage every 8th place, of drawn programs 40 of 320.
Under each proof stands what was broken in the code to see its test fail, or that nothing was yet.
What is promised against whom, and what is not, is in `SECURITY.md`.
Fuzzing by coverage (`bench/fuzz.py`, ten readers in turn, one core shared with others): 819,311 files in 54 minutes of runs that
were whole; five inputs that were found are repaired and kept in `tests/safety/findings`.
"""
MUTANTS = Path(__file__).parent / "mutants.json"
MUTANTS_HEAD = """
## The tests notice changes of the code

`make mutants` changes one operator, number or condition at a time, at {drawn} places drawn evenly from eight packages
(seed {seed}), and runs up to 40 tests that touch the place, of those files of tests that were mapped; what these do not
notice was tried by some further tests, chosen by hand.
The change is killed where a test fails that passes on the sound code. What nobody can see is
equivalent and not counted, nor is what was drawn but not yet tried. `bench/mutants.py --store` writes the counts.

| package | tried | killed | share | equivalent | not run |
|---|---:|---:|---:|---:|---:|"""
FINDINGS = "## Findings\n\nThis list is written by `docs/build.py` from the declarations in `src/ravine/doctor/findings`.\n"
DURATIONS = (
    "A *duration* counts epochs (`30ep`: passes over the training part), iterations (`500it`: steps, each of one "
    "batch) or a share of the run (`5%`). An epoch of N samples has N / batch iterations, rounded up: its last batch is "
    "smaller, or left out with `data.last_batch`."
)
KINDS = {
    "source": "Where examples come from. `data.source` names one; `ravine data SOURCE` shows what is in it.",
    "preprocess": "Fitted on the training part alone, stored with the run, undone where it can be. `data.preprocess` "
    "lists them in order. Figures: before and after, for a table of two features.",
    "augment": "Random changes of the training examples, batched on the device, a function of seed and step: what is "
    "known beforehand of the task, such as that a shifted digit is the same digit. "
    "`data.augment` lists them in order; `ravine show RECIPE` draws a sheet of your own data.",
    "layer": "What a model is made of. Figures: an input and what the layer makes of it; for activations, the "
    "function and its derivative.",
    "initializer": "How weights and biases begin: `model.init`, or `init` of a layer. Figures: the weights of a layer "
    "of 256 inputs and units; the variance of activations through 20 such layers.",
    "loss": "What training makes small: the empirical risk, the mean of the samples' losses, plus the penalties. The "
    "mean over validation and test samples estimates the expected risk. Each sample has its loss; penalties and class "
    "weights are the same for all. `l1` and `l2` together are the elastic net.",
    "metric": "What is reported after each epoch, computed from the outputs of a whole part. Figures: the metric while "
    "noise on the model's scores grows.",
    "model": "Whole networks by name. Figures: parameters and output size of each layer.",
    "optimizer": "How a step follows from a gradient. Every number may differ between members. Figures: 60 steps in a "
    "ravine, f = (x^2 + 25 y^2) / 2, at the learning rate that ends lowest. Learned optimisers, networks that give the "
    "step, are out of scope.",
    "schedule": "Multipliers of the learning rate over the run. Figures: 20 epochs; dashed, the same after a warm-up. "
    "Instead of a rate that shrinks the batch may grow: `data.grow` (Smith et al., 2018). When the batch changes, "
    "`ravine.scaled_lr` gives the rate that goes with it, lr * batch / base_batch (Goyal et al., 2017).",
    "step": "How a batch becomes a loss, where it is not the loss of the model's output: a function of your own, "
    "`step=function` of (model, batch). The package has none by name: see [your own code](../own-code.md).",
    "constraint": "Projections of the weights after each step. Figures: weights before and after, two for each unit.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", action="store_true", help="write the pages, draw nothing")
    parser.add_argument("names", nargs="*", help="figures to draw: a kind, or KIND.NAME; none: all")
    options = parser.parse_args()
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if not options.pages:
        sys.path.insert(0, str(Path(__file__).parent))
        import drawing

        if not options.names or "picture" in options.names:
            picture(Path(__file__).parent / "pictures" / "digits.svg")
        for technique in techniques():
            if not options.names or {technique.kind, f"{technique.kind}.{technique.name}"} & set(
                options.names
            ):
                drawing.save(technique, figure_path(technique))


def findings() -> str:
    """The doctor's page: as it is up to the list of findings, which the declarations write."""
    from ravine.doctor.table import declarations

    page = DOCTOR.read_text(encoding="utf-8")
    above, mark, _ = page.partition(FINDINGS)
    parts = [above.rstrip(), mark.rstrip()]
    for kind in declarations():
        parts += [f"### {kind.code}", f"**{kind.title}** {kind.cause} {kind.leads_to}"]
        follow = ", ".join(f"`{code}`" for code in kind.consequences)
        parts += [f"Usual consequences: {follow}."] if follow else []
        parts += [f"Seen by: {kind.seen_by}", f"What to do: {kind.what_to_do}"]
    return "\n\n".join(parts) + "\n"


def picture(to: Path) -> None:
    """The README's: three optimisers in a ravine, and five seeds of `ravine train`, trained as one
    population."""
    import drawing

    from ravine.training.train import train_many

    recipe = Recipe.load(Path(ravine.__file__).parent / "digits.toml")
    with tempfile.TemporaryDirectory() as folder:
        recipes = [recipe.edit({"seed": seed, "threads": 1}) for seed in range(5)]
        runs = train_many(recipes, out=Path(folder) / "run", quiet=True)
        to.parent.mkdir(exist_ok=True)
        drawing.picture([run.metrics["val_accuracy"].to_numpy() for run in runs], to)


def gallery_pages() -> dict[Path, str]:
    """The gallery's index and a page for each item, from the scripts and docs/gallery/results.json,
    which ``ravine gallery --out docs/gallery`` writes."""
    results = json.loads((GALLERY / "results.json").read_text(encoding="utf-8"))
    found = {item["name"]: item for item in results["items"]}
    scripts = gallery.scripts()
    index = [GALLERY_HEAD, f"Measured on {_machine(results)}.", ""]
    index += ["| item | claim | true here |", "| --- | --- | --- |"]
    for script in scripts:
        here = "yes" if found[script.name]["true"] else "**no**"
        link = f"[{script.number}. {script.title}]({script.path.stem}.md)"
        index += [f"| {link} | {script.claim} | {here} |"]
    pages = {GALLERY / f"{s.path.stem}.md": _gallery_page(s, found[s.name]) for s in scripts}
    return {GALLERY / "index.md": "\n".join([*index, ""]), **pages}


def _gallery_page(script: gallery.Script, found: dict[str, Any]) -> str:
    numbers = ["| measured | mean and 95 % interval | rule | |", "| --- | --- | --- | --- |"]
    for n in found["numbers"]:
        interval = f" [{n['low']:.3g}, {n['high']:.3g}], n = {n['count']}" if n["count"] > 1 else ""
        answer = "true" if n["true"] else "**false**"
        what = n["text"].replace("|", "\\|")
        numbers += [f"| {what} | {n['mean']:.3g}{interval} | {n['rule']} | {answer} |"]
    moving = GALLERY / "figures" / f"{script.path.stem}.gif"
    parts = [
        f"# {script.number}. {script.title}",
        script.claim,
        f"![{script.title}](figures/{script.path.stem}.svg)",
        *([f"![{script.title}, moving](figures/{moving.name})"] if moving.exists() else []),
        "\n".join(numbers),
        *(["Figure and numbers are those of quick mode."] if found.get("quick") else []),
        f"`ravine gallery {script.name}` runs it. To see it fail: {script.to_fail}",
        f"```python\n{gallery.code(script)}```",
        "[The gallery](index.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _machine(results: dict[str, Any]) -> str:
    facts, versions = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{facts['cores']} cores of {facts['cpu']}, {packages}"


def techniques() -> list[Technique]:
    return [technique for kind in FILES for technique in table(kind).values()]


def figure_path(technique: Technique) -> Path:
    return PAGES / "figures" / f"{technique.kind}-{technique.name}.svg"


def pages() -> dict[Path, str]:
    """Every page, by its path."""
    found = {PAGES / f"{kind}.md": page(kind) for kind in FILES}
    found |= {PAGES / "index.md": index(), PAGES / "recipe.md": recipe_page()}
    found |= {DOCTOR: findings(), API_PAGE: api(), RELIABILITY: reliability()}
    return {**found, **gallery_pages()}


def reliability() -> str:
    """The page of promises, from the counts of their trials."""
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    lines = [RELIABILITY_HEAD, "| promise | trials | passed |", "|---|---:|---:|"]
    parts = {
        promise: [part for test in tests.values() for part in test["parts"].values()]
        for promise, tests in counts.items()
    }
    for promise, each in parts.items():
        lines.append(f"| {promise} | {_sum(each, 0):,} | {_sum(each, 1):,} |")
    for promise, tests in counts.items():
        lines += ["", f"## {promise}", ""]
        for test, said in sorted(tests.items()):
            each = list(said["parts"].values())
            lines.append(f"- {said['proof']}<br>{said['broken']}<br>")
            ran = [name.partition("[")[2].rstrip("]") for name in said["parts"]]
            which = f" [{', '.join(ran)}]" if any(ran) else ""
            lines.append(
                f"  **{_sum(each, 1):,} of {_sum(each, 0):,}** trials passed (`{test}`){which}."
            )
    return "\n".join([*lines, *mutants()]) + "\n"


def mutants() -> list[str]:
    """The page's part on mutation testing: the score of each package, and what was not killed."""
    found = json.loads(MUTANTS.read_text(encoding="utf-8"))
    lines = [MUTANTS_HEAD.format(**found)]
    for package, fates in found["packages"].items():
        killed, same, rest = (fates.get(fate, 0) for fate in ("killed", "equivalent", "not run"))
        tried = sum(fates.values()) - same - rest
        share = f"{killed / tried:.0%}" if tried else ""
        lines.append(f"| {package} | {tried} | {killed} | {share} | {same} | {rest} |")
    lines += ["", *textwrap.wrap(found["note"], 120)] if "note" in found else []
    titles = {
        "survived": "Survived",
        "untouched": "Touched by no test that was mapped",
        "equivalent": "Equivalent",
    }
    for fate, title in titles.items():
        rows = [row for row in found["not_killed"] if row["fate"] == fate]
        lines += ["", f"{title}:", ""] if rows else []
        for row in rows:
            before, after = (" ".join(row[key].split()) for key in ("before", "after"))
            reason = f": {row['reason']}" if row["reason"] else ""
            lines.append(f"- `{row['file']}`: ``{before}`` became ``{after}``{reason}")
    return lines


def _sum(parts: list[list[int]], column: int) -> int:
    return sum(part[column] for part in parts)


API = {  # every public name, by what it is for; tests/project/test_site.py compares the page with ravine.__all__
    "Training": ("train", "train_many", "resume", "Run"),
    "Recipes and techniques": ("Recipe", "technique", "scaled_lr"),
    "The doctor": ("diagnose", "prove", "watch"),
    "Studies": (
        "search",
        "compare",
        "lr",
        "ensemble",
        "Ensemble",
        "advise",
        "babysit",
        "features",
        "gradcheck",
        "landscape",
        "lottery",
        "signals",
    ),
}


def api() -> str:
    """The page of all public names: mkdocstrings writes it from the docstrings when the site is built."""
    homes = {name: f"ravine.{home}.{name}" for name, home in ravine._HOMES.items()}
    places = {name: homes.get(name, f"ravine.study.{name}.study.{name}") for name in ravine.__all__}
    grouped = [name for names in API.values() for name in names]
    groups = {**API, "With other libraries": tuple(n for n in ravine.__all__ if n not in grouped)}
    parts = [
        "# API",
        "Every public name of the package `ravine`: `import ravine`, then `ravine.train(…)`.",
    ]
    for title, names in groups.items():
        parts += [f"## {title}", *(f"::: {places[name]}" for name in names if name in places)]
    return "\n\n".join(parts) + "\n"


def index() -> str:
    lines = [
        "# The catalogue",
        "",
        "Every technique, by kind. `ravine catalogue` lists the same on the command line,",
    ]
    lines += [
        "`ravine catalogue NAME` shows one. The [fields of a recipe](recipe.md) have a page of their own.",
        "",
    ]
    for kind in FILES:
        names = ", ".join(f"[{name}]({kind}.md#{name})" for name in table(kind))
        lines += [f"- **[{kind}]({kind}.md)**: {names}"]
    return "\n".join([*lines, ""])


def page(kind: str) -> str:
    parts = [f"# {kind}", KINDS[kind]]
    if kind in COMMON:
        parts += [f"Fields of every {kind}, beside its own:", field_table(COMMON[kind], kind)]
    parts += [text for technique in table(kind).values() for text in entry(technique)]
    return "\n\n".join(parts) + "\n"


def entry(technique: Technique) -> list[str]:
    own = [row for row in rows(technique.part) if row.name in technique.fields]
    figure = figure_path(technique).relative_to(PAGES).as_posix()
    parts = [f"## {technique.name}", markdown(technique.doc), f"![{technique.name}]({figure})"]
    return [*parts, *([_table(own)] if own else [])]


def recipe_page() -> str:
    """The recipe's own fields and sections; where a technique stands, a link to its kind."""
    meaning = "What stands in a recipe file. Members of one population may differ in the fields that say *per member*; "
    parts = [
        "# The fields of a recipe",
        meaning + "another value of any other field makes another program.",
        DURATIONS,
    ]
    plain = [row for row in rows(Recipe) if row.takes != "table"]
    parts += ["## Top level", _table(plain, links=True)]
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Part):
            parts += [f"## [{name}]", section.__doc__ or "", field_table(section, name, links=True)]
    return "\n\n".join(parts) + "\n"


def field_table(part: type[Part], kind: str, links: bool = False) -> str:
    return _table(list(rows(part, inherited=kind in ("optimizer", "schedule"))), links)


def _table(found: list[Row], links: bool = False) -> str:
    described = any(row.doc for row in found)
    head = ["field", "takes", "default", "per member", *(["what it is"] if described else [])]
    lines = [head, ["---"] * len(head)]
    for row in found:
        takes = row.takes.replace("|", "\\|")
        takes = f"[{takes}]({takes}.md)" if links and takes in FILES else takes
        default = "" if row.required else f"`{_written(row.default)}`"
        cells = [
            f"`{row.name}`",
            takes,
            default or "must be given",
            "yes" if row.per_member else "",
        ]
        lines.append([*cells, *([row.doc.replace("|", "\\|")] if described else [])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _written(default: Any) -> str:
    return "none" if default is None else json.dumps(default, ensure_ascii=False)


if __name__ == "__main__":
    main()
