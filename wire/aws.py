"""What is known of AWS besides Bedrock: how its regions are named."""

from __future__ import annotations

import re
from typing import Final

_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}")


def is_region(name: str) -> bool:
    """True for what looks like a region of AWS: `eu-central-1`, `us-gov-west-1`."""
    return _REGION.fullmatch(name) is not None
