"""Holds packer/autoinstall/user-data against subiquity's own JSON schema: autoinstall_check.py SCHEMA [USER-DATA].

The schema is subiquity's, under its licence, and so no file of this repository: fetch autoinstall-schema.json of
github.com/canonical/subiquity (docs/host-image.md says which commit was used).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import yaml

USER_DATA = Path(__file__).resolve().parents[1] / "packer/autoinstall/user-data"


def faults(schema: Path, user_data: Path) -> list[str]:
    """Return what the schema does not allow in a user-data file, one line each; none when it is valid.

    Raises:
        KeyError: there is no `autoinstall` in it.
        jsonschema.SchemaError: the schema is none.
    """
    rules = json.loads(schema.read_text(encoding="utf-8"))
    told = yaml.safe_load(user_data.read_text(encoding="utf-8"))["autoinstall"]
    validator = jsonschema.validators.validator_for(rules, default=jsonschema.Draft7Validator)
    validator.check_schema(rules)
    return [f"{error.json_path}: {error.message}" for error in validator(rules).iter_errors(told)]


def main(argv: list[str]) -> int:
    """Print the faults and return the exit code."""
    if len(argv) not in {1, 2}:
        sys.stderr.write(__doc__ or "")
        return 2
    found = faults(Path(argv[0]), Path(argv[1]) if len(argv) > 1 else USER_DATA)
    sys.stdout.write("".join(line + "\n" for line in found) or "valid\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
