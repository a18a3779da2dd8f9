"""Words and names by which columns are recognised, in the languages that tables come in."""

from __future__ import annotations

import re

TRUE = (
    "true", "t", "yes", "y", "1", "on", "x", "✓", "✔", "ja", "j", "wahr", "oui", "vrai", "si",
    "sí", "sì", "vero", "verdadero", "sim", "verdadeiro", "tak", "да", "evet", "kyllä", "igen",
    "ano", "áno", "jah", "taip", "jā", "はい", "是", "有",
)  # fmt: skip
FALSE = (
    "false", "f", "no", "n", "0", "off", "✗", "✘", "nein", "falsch", "non", "faux", "falso",
    "não", "nao", "nie", "нет", "hayır", "hayir", "ei", "nem", "ne", "nej", "nei", "nee", "nē",
    "いいえ", "否", "无",
)  # fmt: skip
UUID = re.compile(r"\{?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?")
ID_NAME = re.compile(
    r"(^|[\s_\-.])(id|ids|uid|uuid|guid|key|nr|no|num|number|nummer|index|idx|pk|row|rownum|"
    r"reference|ref|isbn|ean|sku|serial|phone|mobile|telefon|tel|fax|iban|ssn)$|^(unnamed: ?\d+|id|index)\b|[a-z]I[dD]$|(kunden?|"
    r"customer|account|order|invoice|ticket|record|patient|passenger|member)[\s_-]?(id|nr|no|"
    r"number|nummer)",
    re.IGNORECASE,
)
FOLDED_ID = re.compile(r"[a-z]I[dD]$")
NAMES_A_PLACE = re.compile(
    r"zip|postal|postcode|post.?code|plz|postleitzahl|code.?post|c\.?p\.?$|^cap$|cep", re.I
)
NAMES_A_TIME = re.compile(
    r"time|date|datum|zeit|fecha|hora|heure|unix|epoch|(^|[\s_\-.])ts$|_at$|created|updated|since",
    re.IGNORECASE,
)
NAMES_SOMETHING = re.compile(r"(^|[\s_\-.])(id|uid)$|[a-z]I[dD]$", re.IGNORECASE)


# Cells that sum up the rows above them, and lines under a table.
TOTALS = (
    "total", "totals", "grand total", "sum", "subtotal", "overall", "average", "mean", "all",
    "summe", "gesamt", "gesamtsumme", "insgesamt", "mittelwert", "totaux", "somme", "moyenne",
    "totale", "somma", "media", "suma", "promedio", "soma", "média", "totaal", "summa", "totalt",
    "razem", "ogółem", "итого", "всего", "toplam", "celkem", "合計", "合计", "总计",
)  # fmt: skip


def named_like_an_id(name: str) -> bool:
    """Whether a column's name says that it identifies its rows."""
    return bool(ID_NAME.search(name)) or bool(FOLDED_ID.search(name))
