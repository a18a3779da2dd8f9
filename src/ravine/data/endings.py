"""Which kind of data a file holds, by the ending of its name."""

JSON_LINES = (".jsonl", ".ndjson")  # one object a line
TABLES = (".csv", ".tsv", ".tab", ".xlsx", ".xlsm", *JSON_LINES)
OTHER_SHEETS = (".xls", ".xlsb", ".ods", ".numbers")  # spreadsheets that are not read
TEXTS = (".txt", ".md", ".text")
TEXTS_BY_CLASS = (*TEXTS, "")  # files of mail and news have none
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
RECIPES = (".toml", ".json")
PARQUET = (".parquet", ".arrow", ".feather")
SHARDS = (".tar",)
