"""docs/differences.md, written from the table.

python tests/differential/lockstep/document.py    write it
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "differences.md"

INTRODUCTION = """\
# Known differences from etcd 3.5.1

The server follows the contract of etcd 3.7. The tests compare it with a real etcd 3.5.1, the one
that pip can install, answer by answer; this is the whole list of what may differ, and why.

The list is written from `tests/differential/known_differences.toml`, which is what the comparison
itself goes by: a difference that is not in it fails a test, and so does a row that no difference
needs.

| What | etcd 3.5.1 | Here | Why |
| --- | --- | --- | --- |
"""


def text() -> str:
    """What the document has to say."""
    from lockstep.differences import rows

    lines = (f"| {r.what} | {r.etcd_does} | {r.ours_does} | {r.reason} |\n" for r in rows())
    return INTRODUCTION + "".join(lines)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text())
