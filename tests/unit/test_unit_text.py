"""Unit files as `systemctl cat` prints them."""

from __future__ import annotations

from orchctl.core.unit_text import assignments, settings

TEXT = """\
# /etc/systemd/system/a.service
[Unit]
Description = Does it
; another comment
[Service]
ExecStart=/bin/echo one \\
# between
  two
Environment=A=1
Environment=B=2
MemoryMax=1G
LimitNOFILE=
Nice=5

# /etc/systemd/system/a.service.d/50.conf
[Service]
Environment=
Environment=C=3
MemoryMax=2G
ExecStart=
ExecStart=/bin/two \\\\
Nice=
"""


def test_what_is_in_force_is_left() -> None:
    assert [str(each) for each in settings(TEXT)] == [
        "Description=Does it",
        "ExecStart=/bin/two \\\\",
        "Environment=C=3",
        "MemoryMax=2G",
    ]


def test_lines_that_a_backslash_continues_are_one() -> None:
    first = next(each for each in assignments(TEXT) if each.key == "ExecStart")
    assert first.value == "/bin/echo one  two"


def test_lists_keep_every_value() -> None:
    found = settings("[Timer]\nOnCalendar=daily\nOnCalendar=weekly\n[X]\nJunk\n=5\n")
    assert [each.value for each in found if each.key == "OnCalendar"] == ["daily", "weekly"]
