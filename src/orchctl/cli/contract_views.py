"""What `contract list` and `contract check` show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchctl.cli import render
from orchctl.core import durations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchctl.core.contracts import Checked, ContractTable
    from orchctl.services.contracts import Listed
    from orchctl.wiring import Settings


def listed(contracts: Sequence[Listed], settings: Settings) -> None:
    """List the contracts."""
    rows = [
        (each.name, _promises(each.contract), ", ".join(each.used_by) or "-", each.contract.description)
        for each in contracts
    ]
    data = {
        "contracts": [
            {
                "name": each.name,
                **each.contract.model_dump(mode="json", by_alias=True),
                "used_by": list(each.used_by),
            }
            for each in contracts
        ]
    }

    def text() -> None:
        if rows:
            render.table(("CONTRACT", "PROMISES", "USED BY", "DESCRIPTION"), rows, settings, flexible="DESCRIPTION")
        else:
            render.note("the catalog has no contracts")

    render.emit("contract list", data, text, settings)


def checked(found: Sequence[Checked], settings: Settings) -> None:
    """Show what came of checking files: a line for each, and a table of all findings."""
    broken = [each for each in found if not each.holds]
    data = {"checks": [each.to_json() for each in found]}
    errors = [{"code": "contract", "message": f"{each.file}: {each.message}", "hint": None} for each in broken]
    rows = [
        (each.file, finding.column or "-", finding.check, finding.message)
        for each in found
        for finding in each.findings
    ]

    def text() -> None:
        if rows:
            render.table(("FILE", "COLUMN", "RULE", "FINDING"), rows, settings, flexible="FINDING")
        for each in found:
            size = "" if each.rows is None else f", {each.rows:,} {'row' if each.rows == 1 else 'rows'}"
            number = len(each.findings)
            end = "" if each.holds else f": {number} {'finding' if number == 1 else 'findings'}"
            render.line(f"contract {'holds' if each.holds else 'broken'}: {each.contract}: {each.file}{size}{end}")

    render.emit("contract check", data, text, settings, errors=errors, failed=bool(broken))


def _promises(contract: ContractTable) -> str:
    parts = [contract.schema_class] if contract.schema_class else []
    if contract.columns:
        number = len(contract.columns)
        exactly = "exactly " if contract.strict else ""
        parts.append(f"{exactly}{number} {'column' if number == 1 else 'columns'}")
    parts += [f"key ({', '.join(key)})" for key in contract.unique]
    if contract.rows.min or contract.rows.max is not None:
        most = f" to {contract.rows.max}" if contract.rows.max is not None else " or more"
        parts.append(f"{contract.rows.min}{most} rows")
    if contract.freshness is not None:
        parts.append(f"at most {durations.canonical(contract.freshness.within)} old")
    return ", ".join(parts)
