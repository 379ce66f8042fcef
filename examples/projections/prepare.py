"""Copy this example to a folder, with raw data for a few dates and a catalog that knows where it is.

python examples/projections/prepare.py /tmp/projections --start 2025-12-17 --days 3
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from projections import raw

HERE = Path(__file__).resolve().parent
STANDS_FOR = "/srv/projections-example"
"""The folder that the catalog of the example names."""
_CODE = shutil.ignore_patterns("__pycache__")


def set_up(folder: Path, days: Sequence[date], *, seed: int = 7) -> None:
    """Make the example in `folder`, which is made if need be; what is there already is written over. Repeatable."""
    root = folder.resolve()
    for name in ("projections", "scripts", "config"):
        shutil.copytree(HERE / name, root / name, ignore=_CODE, dirs_exist_ok=True)
    for path in (root / "config").glob("*.toml"):
        path.write_text(path.read_text(encoding="utf-8").replace(STANDS_FOR, str(root)), encoding="utf-8")
    python = root / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    raw.write(root / "data", days, seed=seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2025, 12, 17), help="the first date")
    parser.add_argument("--days", type=int, default=3, help="how many dates")
    parser.add_argument("--seed", type=int, default=7, help="what the data is drawn from")
    args = parser.parse_args(argv)
    set_up(args.folder, [args.start + timedelta(days=day) for day in range(args.days)], seed=args.seed)
    print(f"the example is in {args.folder.resolve()}")


if __name__ == "__main__":
    main()
