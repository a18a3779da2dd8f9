"""Further drawn tables of kinds that people have, made after the starter's rules to judge them:
`other_tables.py --fresh` runs them. Regressions of 15,000 to 50,000 rows with noise from a fiftieth to
three times what can be explained, large classifications, and tables of 200 to 1,500 rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Rng = np.random.Generator


def _frame(x: np.ndarray, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(x.round(4), columns=[f"x{i}" for i in range(x.shape[1])]).assign(**more)


def _named(prefix: str, numbers: np.ndarray) -> list[str]:
    return [f"{prefix}{i}" for i in numbers]


# --- large regressions ----------------------------------------------------------------------------


def turbine(rng: Rng, n: int) -> pd.DataFrame:
    """Four smooth measurements that hang together; noise of a tenth of the deviation."""
    warm = rng.uniform(2, 36, n)
    vacuum = 40 + 0.9 * warm + 6 * rng.normal(size=n)
    pressure, damp = rng.normal(1013, 6, n), rng.uniform(25, 100, n)
    y = 510 - 1.8 * warm - 0.3 * vacuum + 0.06 * (pressure - 1013) - 0.002 * warm * damp
    y = y + 3 * np.tanh((vacuum - 55) / 4) + 1.7 * rng.normal(size=n)
    found = {"warm": warm, "vacuum": vacuum, "pressure": pressure, "damp": damp, "y": y}
    return pd.DataFrame(found).round(2)


def bicycles(rng: Rng, n: int) -> pd.DataFrame:
    """Counts by hour, weekday and season, as a Poisson distribution scatters them."""
    when = pd.to_datetime("2017-01-01") + pd.to_timedelta(rng.integers(0, 24 * 1400, n), "h")
    hour, day = when.hour.to_numpy(), when.dayofweek.to_numpy()
    warm = 12 - 11 * np.cos(2 * np.pi * when.dayofyear.to_numpy() / 365) + 4 * rng.normal(size=n)
    rain = rng.choice(["dry", "wet", "snow"], n, p=[0.75, 0.22, 0.03])
    work = np.exp(-((hour - 8) ** 2) / 3) + 1.2 * np.exp(-((hour - 17) ** 2) / 5)
    free = 0.9 * np.exp(-((hour - 14) ** 2) / 18)
    level = 0.05 + np.where(day < 5, work, free) + 0.3 * np.exp(-((hour - 13) ** 2) / 30)
    wet = pd.Series(rain).map({"dry": 1.0, "wet": 0.55, "snow": 0.25}).to_numpy()
    y = rng.poisson(250 * level * wet / (1 + np.exp(-(warm - 8) / 5)))
    found = {"time": when.strftime("%Y-%m-%d %H:%M"), "warm": warm.round(1), "rain": rain, "y": y}
    return pd.DataFrame(found)


def flats(rng: Rng, n: int) -> pd.DataFrame:
    """Prices by place on a map, eighty quarters and size; noise of 20 %."""
    east, north = rng.uniform(-1, 1, (2, n))
    quarter = (np.floor(4 * (east + 1)) * 10 + np.floor(5 * (north + 1))).astype(int)
    size, year = rng.gamma(8, 10, n), rng.integers(1890, 2022, n)
    high = 1.2 * np.exp(-4 * (east**2 + north**2)) + 0.6 * np.exp(-9 * ((east - 0.6) ** 2 + (north + 0.4) ** 2))  # fmt: skip
    old = np.abs(year - 1965) / 60
    y = np.log(size) * 0.95 + high + 0.3 * old + rng.normal(0, 0.25, 80)[quarter]
    y = np.exp(8 + y + 0.2 * rng.normal(size=n))
    found = {"east": east.round(4), "north": north.round(4), "quarter": _named("Q", quarter)}
    return pd.DataFrame(found | {"size": size.round(1), "year": year, "y": y.round()})


def trips(rng: Rng, n: int) -> pd.DataFrame:
    """Durations of ways between two places, by hour; noise of a third."""
    places, hour = rng.normal(size=(n, 4)), rng.integers(0, 24, n)
    way = np.abs(places[:, 0] - places[:, 2]) + np.abs(places[:, 1] - places[:, 3])
    slow = 1 + 0.8 * np.exp(-((hour - 8) ** 2) / 4) + 0.6 * np.exp(-((hour - 18) ** 2) / 6)
    centre = np.exp(-(places[:, 0] ** 2 + places[:, 1] ** 2))
    y = (2 + 5 * way * slow * (1 + centre)) * np.exp(0.35 * rng.normal(size=n))
    return _frame(places, hour=hour, riders=rng.integers(1, 6, n), y=y.round(2))


def premium(rng: Rng, n: int) -> pd.DataFrame:
    """Rules of a firm: steps and tables of factors over numbers and categories; noise of 5 %."""
    age, sum_, region = rng.integers(18, 80, n), rng.gamma(3, 30, n), rng.integers(0, 16, n)
    kind, brand, years = rng.integers(0, 5, n), rng.integers(0, 70, n), rng.integers(0, 30, n)
    band = np.digitize(age, [21, 25, 30, 45, 60, 70])
    y = 200 * rng.uniform(0.7, 1.6, (7, 5))[band, kind] * rng.uniform(0.7, 1.4, 16)[region]
    y = y * rng.uniform(0.8, 1.5, 70)[brand] * np.array([1.3, 1.15, 1, 0.85])[np.digitize(years, [3, 8, 15])]  # fmt: skip
    y = y * np.array([0.6, 0.9, 1.2, 1.8])[np.digitize(sum_, [40, 90, 150])]
    y = y * np.exp(0.05 * rng.normal(size=n))
    found = {"age": age, "insured": sum_.round(1), "region": _named("R", region), "years": years}
    return pd.DataFrame(found | {"kind": _named("k", kind), "brand": _named("b", brand), "y": y.round(2)})  # fmt: skip


def sales(rng: Rng, n: int) -> pd.DataFrame:
    """Twelve hundred goods, few of them frequent, in fifty shops; noise of twice what is explained by
    the shops."""
    good = np.minimum(rng.zipf(1.3, n) - 1, 1199)
    shop, price = rng.integers(0, 50, n), rng.gamma(4, 3, n)
    level = rng.normal(0, 1, 1200)[good] + rng.normal(0, 0.5, 50)[shop]
    y = level - 0.08 * price * rng.uniform(0.3, 1.7, 1200)[good] + rng.normal(size=n)
    found = {"good": _named("g", good), "shop": _named("s", shop), "price": price.round(2)}
    return pd.DataFrame(found | {"y": y.round(3)})


def returns(rng: Rng, n: int) -> pd.DataFrame:
    """Twenty-five numbers that say a tenth of what happens."""
    x = rng.normal(size=(n, 25))
    signal = 0.5 * x[:, 0] + 0.6 * x[:, 1] * x[:, 2] - 0.5 * np.abs(x[:, 3]) + 0.4 * (x[:, 4] > 1)
    return _frame(x, y=(signal + 3 * rng.normal(size=n)).round(4))


def glass(rng: Rng, n: int) -> pd.DataFrame:
    """A sum of curves, kinks and waves of twelve numbers; noise of a fiftieth of the deviation."""
    x = rng.uniform(-2, 2, (n, 12))
    y = np.exp(x[:, 0]) + 3 * np.maximum(x[:, 1], 0.5) + 2 * np.sin(4 * x[:, 2]) + x[:, 3] ** 3
    y = y + 2 * np.abs(x[:, 4] - 0.7) + x[:, 5] * x[:, 6] + np.cos(9 * x[:, 7])
    return _frame(x, y=(y + 0.1 * rng.normal(size=n)).round(4))


# --- large classifications ------------------------------------------------------------------------


def forests(rng: Rng, n: int) -> pd.DataFrame:
    """Five kinds by height, slope and forty soils, whose borders are soft."""
    height, slope, water = rng.normal(2700, 400, n), rng.gamma(3, 6, n), rng.gamma(2, 150, n)
    soil, light = rng.integers(0, 40, n), rng.integers(100, 255, (n, 3))
    near = np.stack([-(((height - mid) / 250) ** 2) for mid in (2100, 2450, 2750, 3000, 3300)], 1)
    near = near + rng.normal(0, 1.2, (40, 5))[soil] + np.outer(slope / 18 - 1, [1, 0.5, 0, -0.5, 0])
    near = near + np.outer(np.log1p(water) - 5, [-0.7, 0, 0.3, 0, 0.4]) + rng.gumbel(0, 0.7, (n, 5))
    found = {"height": height.round(), "slope": slope.round(1), "water": water.round()}
    found |= {"soil": _named("soil ", soil), **{f"light{i}": light[:, i] for i in range(3)}}
    return pd.DataFrame(found | {"y": np.array(list("ABCDE"))[near.argmax(1)]})


def clicks(rng: Rng, n: int) -> pd.DataFrame:
    """A class of a sixth, by campaigns, pages and the hour, mostly chance."""
    campaign, page, hour = rng.integers(0, 200, n), rng.integers(0, 90, n), rng.integers(0, 24, n)
    score = rng.normal(0, 0.9, 200)[campaign] + rng.normal(0, 0.9, 90)[page] - 2.2
    score = score + 0.8 * np.cos(2 * np.pi * (hour - 20) / 24) + rng.normal(size=(6, 4))[campaign % 6, page % 4]  # fmt: skip
    y = np.where(rng.random(n) < 1 / (1 + np.exp(-score)), "click", "none of it")
    found = {"campaign": _named("c", campaign), "page": _named("p", page), "hour": hour}
    return pd.DataFrame(found | {"age": rng.integers(16, 80, n), "y": y})


# --- small tables ---------------------------------------------------------------------------------


def cement(rng: Rng, n: int) -> pd.DataFrame:
    """Strength by a mixture of seven and the logarithm of age; noise 4."""
    x, days = rng.gamma(4, 40, (n, 6)), rng.choice([1, 3, 7, 14, 28, 56, 90], n)
    ratio = x[:, 0] / (x[:, 1] + 60)
    y = 12 * np.log1p(ratio) * (1 + 0.45 * np.log(days)) + 0.04 * x[:, 2] - 0.02 * x[:, 3]
    y = y + 6 * np.tanh(x[:, 4] / 100) + 4 * rng.normal(size=n)
    return _frame(x, days=days, y=y.round(2))


def hulls(rng: Rng, n: int) -> pd.DataFrame:
    """Resistance, a steep power of speed; noise of 10 %."""
    speed, x = rng.uniform(0.1, 0.5, n), rng.normal(size=(n, 5))
    y = (
        400
        * speed**3.5
        * np.exp(0.2 * x[:, 0] - 0.15 * x[:, 1] * x[:, 2] + 0.1 * rng.normal(size=n))
    )
    return _frame(x, speed=speed.round(3), y=y.round(4))


def soil(rng: Rng, n: int) -> pd.DataFrame:
    """A spectrum of eighty bands from five substances, of which one is asked for."""
    amount, bands = rng.gamma(2, 1, (n, 5)), np.linspace(0, 1, 80)
    peaks = np.exp(-((bands - rng.uniform(0, 1, (5, 1))) ** 2) / 0.02)
    x = np.log1p(amount @ peaks) + 0.02 * rng.normal(size=(n, 80))
    return _frame(x, y=(amount[:, 0] + 0.1 * amount[:, 1] * amount[:, 2] + 0.1 * rng.normal(size=n)).round(3))  # fmt: skip


def credit(rng: Rng, n: int) -> pd.DataFrame:
    """Good and bad by a sum of factors of categories and amounts, with much chance."""
    purpose, job = rng.integers(0, 9, n), rng.integers(0, 4, n)
    amount, months, age = (
        rng.lognormal(7.8, 0.8, n),
        rng.integers(4, 60, n),
        rng.integers(19, 75, n),
    )
    score = rng.normal(0, 0.7, 9)[purpose] + rng.normal(0, 0.4, 4)[job] + 0.03 * (months - 20)
    score = score + 0.4 * np.log(amount / 2500) * (months > 24) - 0.02 * (age - 35) - 0.7
    y = np.where(rng.random(n) < 1 / (1 + np.exp(-1.5 * score)), "bad", "good")
    found = {"purpose": _named("p", purpose), "job": _named("j", job), "amount": amount.round()}
    return pd.DataFrame(found | {"months": months, "age": age, "y": y})


def tasting(rng: Rng, n: int) -> pd.DataFrame:
    """A mark from eleven measurements, a third of it explained."""
    x = rng.normal(size=(n, 4)) @ rng.normal(size=(4, 11)) + rng.normal(size=(n, 11))
    mark = 0.4 * x[:, 0] - 0.3 * x[:, 1] + 0.25 * np.tanh(x[:, 2]) - 0.1 * x[:, 3] ** 2
    return _frame(x, y=(60 + 5 * mark + 12 * rng.normal(size=n)).round(1))


def vowels(rng: Rng, n: int) -> pd.DataFrame:
    """Eleven classes in ten numbers, shifted and stretched for each of fifteen speakers."""
    sound, who = rng.integers(0, 11, n), rng.integers(0, 15, n)
    x = 1.3 * rng.normal(size=(11, 10))[sound] + 0.8 * rng.normal(size=(15, 10))[who]
    x = x * rng.uniform(0.7, 1.4, (15, 1))[who] + 0.7 * rng.normal(size=(n, 10))
    return _frame(x, y=[f"v{i}" for i in sound])


def heart(rng: Rng, n: int) -> pd.DataFrame:
    """Ill or well by a score with two interactions, of which a fifth is chance."""
    x, pain = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
    sex = rng.choice(["f", "m"], n)
    score = x[:, 0] + 0.7 * x[:, 1] * (sex == "m") - 0.8 * x[:, 2] * x[:, 3] + np.array([1, 0.2, -0.3, -1])[pain]  # fmt: skip
    y = np.where(score + 0.8 * rng.logistic(size=n) > 0, "ill", "well")
    return _frame(x, pain=_named("type ", pain), sex=sex, y=y)


def bolts(rng: Rng, n: int) -> pd.DataFrame:
    """Loads by thresholds and a table of two categories; noise of a quarter."""
    steel, shape, x = rng.integers(0, 6, n), rng.integers(0, 4, n), rng.uniform(0, 10, (n, 4))
    y = rng.normal(0, 3, (6, 4))[steel, shape] + 4 * (x[:, 0] > 6) * (x[:, 1] > 3) + 0.4 * x[:, 2]
    y = 20 + y + 1.2 * rng.normal(size=n)
    return _frame(x, steel=_named("s", steel), shape=_named("f", shape), y=y.round(2))


TABLES: dict[str, tuple[Callable[[Rng, int], pd.DataFrame], int]] = {
    "turbine": (turbine, 20_000),
    "bicycles": (bicycles, 22_000),
    "flats": (flats, 25_000),
    "trips": (trips, 40_000),
    "premium": (premium, 30_000),
    "sales": (sales, 50_000),
    "returns": (returns, 50_000),
    "glass": (glass, 22_000),
    "forests": (forests, 30_000),
    "clicks": (clicks, 40_000),
    "cement": (cement, 1000),
    "hulls": (hulls, 300),
    "soil": (soil, 400),
    "credit": (credit, 1000),
    "tasting": (tasting, 1500),
    "vowels": (vowels, 900),
    "heart": (heart, 300),
    "bolts": (bolts, 250),
}
