"""Words and names by which columns are recognised, in the languages that tables come in."""

from __future__ import annotations

import re

TRUE = (
    "true", "t", "yes", "y", "1", "on", "x", "✓", "✔", "ja", "j", "wahr", "oui", "vrai", "si",
    "sí", "sì", "vero", "verdadero", "sim", "verdadeiro", "tak", "да", "evet", "kyllä", "igen",
    "ano", "áno", "jah", "taip", "jā", "はい", "是", "有", "da", "ναι",
    "예", "네", "نعم", "כן", "có", "ya",
)  # fmt: skip
FALSE = (
    "false", "f", "no", "n", "0", "off", "✗", "✘", "nein", "falsch", "non", "faux", "falso",
    "não", "nao", "nie", "нет", "hayır", "hayir", "ei", "nem", "ne", "nej", "nei", "nee", "nē",
    "いいえ", "否", "无", "nu", "όχι",
    "아니요", "아니오", "لا", "לא", "không", "tidak",
)  # fmt: skip
UUID = re.compile(r"\{?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?")
_KEYS = (
    "id|ids|uid|uuid|guid|key|pk|rownum|isbn|ean|sku|serial|phone|mobile|telefon|tel|fax|iban|ssn"
)
_COUNTS = "nr|no|num|number|nummer|index|idx|row|ref|reference"  # which also name quantities
_COUNTED = (
    "kunden?|auftrags?|rechnungs?|artikel|vertrags?|personal|bestell|customer|client|account|order|"
    "invoice|ticket|record|row|line|case|sample|patient|passenger|member|user|employee|student|"
    "product|item|policy|contract|claim|transaction|document|serial|registration"
)
_NAMED = (
    "player|game|team|match|film|movie|book|store|shop|house|listing|property|device|sensor|session|"
    "person|respondent|subject|school|trip|ride|flight|vehicle|station|job|company|site|loan|event"
)
ID_NAME = re.compile(
    rf"(^|[\s_\-.])({_KEYS})$|^({_COUNTS})$|^(unnamed: ?\d+|id|index)\b|"
    rf"({_COUNTED})[\s_\-.]?(id|{_COUNTS})$|^({_NAMED})id$",
    re.IGNORECASE,
)
NAMES_WHO = re.compile(  # who or what is looked at, perhaps in several rows
    rf"^(patient|subject|person|participant|respondent|proband|probandin|customer|kunde|client|user|member|"
    rf"student|pupil|employee|animal|household|family|donor|mouse|rat|specimen|session|trip)$|"
    rf"({_COUNTED}|{_NAMED}|animal|participant|household|family|donor|mouse)[\s_\-.]?(id|code|key|{_COUNTS})$|"
    rf"(^|[\s_\-.])(id|uid)$",
    re.IGNORECASE,
)
FOLDED_ID = re.compile(r"[a-z]I[dD]$")  # customerId; not paid
NAMES_A_PLACE = re.compile(
    r"zip|postal|postcode|post.?code|plz|postleitzahl|code.?post|c\.?p\.?$|^cap$|cep", re.I
)
NAMES_A_TIME = re.compile(
    r"time|date|datum|zeit|fecha|hora|heure|unix|epoch|(^|[\s_\-.])ts$|_at$|created|updated|since",
    re.IGNORECASE,
)
NAMES_A_DAY = re.compile(r"(^|[\s_\-.])(date|datum|fecha)|(?<!up)date$", re.I)
NAMES_A_QUANTITY = re.compile(
    r"(^|[\s_\-.])(years?|jahr|ann[eé]e|año|anno|ano|time|zeit|t|s|sec|seconds?|minutes?|hours?|days?|tag|weeks?|"
    r"woche|months?|monat|mois|mes|quarter|age|alter|rank|rang|ranking|step|dose|dist|distance|depth|height|temp|"
    r"temperature)($|[\s_\-.(\[])",
    re.IGNORECASE,
)
NAMES_SOMETHING = re.compile(r"(^|[\s_\-.])(?i:id|uid)$|[a-z]I[dD]$")


# Cells that sum up the rows above them, and lines under a table.
TOTALS = (
    "total", "totals", "grand total", "sum", "subtotal", "overall", "average", "mean", "all",
    "summe", "gesamt", "gesamtsumme", "insgesamt", "mittelwert", "totaux", "somme", "moyenne",
    "totale", "somma", "media", "suma", "promedio", "soma", "média", "totaal", "summa", "totalt",
    "razem", "ogółem", "итого", "всего", "toplam", "celkem", "合計", "合计", "总计",
)  # fmt: skip


# What a row of units or types below a header holds, without brackets, in lower case.
UNIT_WORDS = frozenset((
    *("m", "m2", "m3", "m²", "m³", "km", "cm", "mm", "µm", "nm", "ft", "in", "inch", "mi", "yd", "ha"),
    *("kg", "g", "mg", "µg", "t", "lb", "lbs", "oz", "l", "ml", "cl", "mg/l", "g/l", "µg/m³", "kg/m²"),
    *("s", "sec", "ms", "min", "h", "hr", "hrs", "d", "days", "weeks", "months", "mo", "years", "yr", "yrs"),
    *("€", "$", "£", "¥", "eur", "usd", "gbp", "chf", "jpy", "inr", "%", "‰", "ppm", "ppb", "°c", "°f", "°"),
    *("k", "c", "f", "j", "kj", "kcal", "w", "kw", "mw", "kwh", "wh", "v", "mv", "a", "ma", "hz", "khz", "mhz"),
    *("ghz", "pa", "hpa", "kpa", "bar", "mbar", "mmhg", "n", "db", "lux", "mol", "mmol", "km/h", "m/s", "mph"),
    *("rpm", "pcs", "stk", "count", "unit", "units", "number", "numeric", "float", "int", "integer", "double"),
    *("real", "string", "str", "text", "object", "continuous", "discrete", "categorical", "date", "datetime"),
    *("bool", "boolean", "-"),
))  # fmt: skip


def named_like_an_id(name: str) -> bool:
    """Whether a column's name says that it identifies its rows."""
    return bool(ID_NAME.search(name)) or bool(FOLDED_ID.search(name))


def are_codes(texts: set[str]) -> bool:
    """Whether letters that could mean yes and no are three codes or two axes: a cross is the only mark
    of its column, and t and f do not come with y, n and j.

    >>> are_codes({"x", "y"}), are_codes({"t", "f", "n"}), are_codes({"y", "yes", "no"})
    (True, True, False)
    """
    others = texts - {"x"}
    crossed = "x" in texts and bool(others & {*"tyj"} or len(others) > 1)
    return crossed or bool(texts & {*"tf"} and texts & {*"yjn"})
