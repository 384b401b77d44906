#!/usr/bin/env python3
"""Transactions of one row each in an SQLite database, one after the other, for some time.

usage: sqlite_load.py DIRECTORY delete|wal MILLISECONDS
"""

import json
import random
import sqlite3
import sys
import time
from pathlib import Path

PHASES = {"delete": "sqlite_rollback", "wal": "sqlite_wal"}
ROW_BYTES = 200


def main(directory, mode, milliseconds):
    rows = [random.Random(seed).randbytes(ROW_BYTES) for seed in range(64)]
    connection = sqlite3.connect(Path(directory) / f"{mode}.sqlite", isolation_level=None)
    got = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    if got != mode:
        sys.exit(f"sqlite_load: the journal mode is {got}, not {mode}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, content BLOB)")
    latencies_us = []
    begun = before = time.perf_counter()
    while before - begun < milliseconds / 1000:
        connection.execute("INSERT INTO rows (content) VALUES (?)", (rows[len(latencies_us) % len(rows)],))
        after = time.perf_counter()
        latencies_us.append((after - before) * 1e6)
        before = after
    connection.close()
    latencies_us.sort()
    figure = {"phase": PHASES[mode], "unit": "tx/s", "value": round(len(latencies_us) / (before - begun), 1)}
    for key, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)):
        figure[key] = round(latencies_us[int((len(latencies_us) - 1) * share)], 1)
    print(json.dumps(figure))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
