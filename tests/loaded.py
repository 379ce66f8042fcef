"""What a command has loaded by the time it ends."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT


def imported(*words: str, **env: str) -> set[str]:
    """Return the top-level modules that are loaded once a command has ended."""
    code = (
        "import sys\nfrom orchctl.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        check=False,
    )
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("LOADED")]
    return set(line.split()[1:])
