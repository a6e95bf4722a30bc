"""The digest of a JSON record, by which a change of any of it is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def seal(record: Mapping[str, Any]) -> str:
    """The SHA-256 of what a record says, in hexadecimal, whatever the order of its keys and their spacing."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
