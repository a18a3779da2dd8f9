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
NAMES_SOMETHING = re.compile(r"(^|[\s_\-.])(id|uid)$|[a-z]I[dD]$", re.IGNORECASE)


def named_like_an_id(name: str) -> bool:
    """Whether a column's name says that it identifies its rows."""
    return bool(ID_NAME.search(name)) or bool(FOLDED_ID.search(name))
