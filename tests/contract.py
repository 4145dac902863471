"""What every target keeps: functions of a `Place`, run on every backend there is.

`tests/test_contract.py` runs them on the stores that need no server,
`integration/test_contract.py` on those that do.
"""

from __future__ import annotations

from tests import contract_carrying, contract_going_on, contract_owning
from tests.contract_kit import CHECKS, Check

__all__ = ["CHECKS", "Check", "contract_carrying", "contract_going_on", "contract_owning"]
