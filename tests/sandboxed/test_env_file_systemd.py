"""What systemd itself makes of environment files is what we make of them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from box import Box
from env_files import ZOO
from orchctl.core import env_file

PROGRAM = """\
import json, os, sys
keep = {key: value for key, value in os.environ.items() if key not in sys.argv[2:]}
with open(sys.argv[1], "w") as file:
    json.dump(keep, file)
"""
SERVICE = """\
[Service]
Type=oneshot
EnvironmentFile={file}
ExecStart=/usr/bin/python3 {folder}/program.py {folder}/{number}.json LANG PATH INVOCATION_ID JOURNAL_STREAM \
SYSTEMD_EXEC_PID LC_CTYPE
"""


def version(box: Box) -> int:
    return int(box.inside.run("systemctl", "--version").split()[1])


def seen(box: Box, files: Mapping[str, bytes]) -> dict[str, dict[str, str] | None]:
    """Return what a service has of each file, None where systemd starts none."""
    folder = box.share / "env-files"
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(PROGRAM)
    names = []
    for number, (_, content) in enumerate(files.items()):
        (folder / f"{number}.env").write_bytes(content)
        box.unit(f"env-{number}.service", SERVICE.format(file=f"{folder}/{number}.env", folder=folder, number=number))
        names.append(f"env-{number}.service")
    box.reload()
    box.systemctl("start", *names, check=False)
    found = {}
    for number, name in enumerate(files):
        path = folder / f"{number}.json"
        found[name] = json.loads(path.read_text()) if path.exists() else None
        path.unlink(missing_ok=True)
    return found


def ours(content: bytes, *, comments_continue: bool) -> dict[str, str] | None:
    try:
        return env_file.parse(content, comments_continue=comments_continue)
    except ValueError:
        return None


def test_every_kind_of_file(box: Box) -> None:
    before_254 = version(box) < 254
    told = seen(box, ZOO)
    assert {name: ours(content, comments_continue=before_254) for name, content in ZOO.items()} == told
    assert sum(value is None for value in told.values()) >= 4


@pytest.mark.parametrize("seed", [1])
def test_files_drawn_at_random(box: Box, seed: int) -> None:
    import random

    draw = random.Random(seed)
    pieces = [b"A", b"B", b"=", b" ", b"\n", b"\\", b"'", b'"', b"#", b";", b"x", b"$", b"`", b"\r", b"\t", b"\n", b"="]
    files = {str(number): b"".join(draw.choices(pieces, k=draw.randint(5, 60))) for number in range(100)}
    before_254 = version(box) < 254
    assert {name: ours(content, comments_continue=before_254) for name, content in files.items()} == seen(box, files)
