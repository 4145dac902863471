"""Metadata filters: the operators of "Filter by metadata", compiled to a predicate.

Semantics the page leaves open: $ne, $nin and $not match records without the field (the SDK's own integration
tests note that the service does so for the first two), and on a list of strings $ne and $nin match when
no element does. Lists match $eq and $in when any element does, as the page says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.pinecone_emulator.errors import invalid
from integration.pinecone_emulator.limits import Limits
from integration.pinecone_emulator.metadata import Metadata, Value

Predicate = Callable[[Metadata], bool]
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda have, want: have > want,
    "$gte": lambda have, want: have >= want,
    "$lt": lambda have, want: have < want,
    "$lte": lambda have, want: have <= want,
}


def compiled(expression: dict[str, Any], limits: Limits) -> Predicate:
    """The predicate of a filter expression; {} matches everything. Raises Refusal if it is none."""
    parts = [_clause(key, value, limits) for key, value in expression.items()]
    return lambda metadata: all(part(metadata) for part in parts)


def _clause(key: str, value: Any, limits: Limits) -> Predicate:
    if key in ("$and", "$or"):
        return _joined(key, value, limits)
    if key.startswith("$"):
        raise invalid(f"Invalid filter: only $and and $or are allowed at the top level, got '{key}'")
    if not isinstance(value, dict):
        return _comparison(key, "$eq", value, limits)
    if not value:
        raise invalid(f"Invalid filter: no condition for field '{key}'")
    parts = [_comparison(key, operator, operand, limits) for operator, operand in value.items()]
    return lambda metadata: all(part(metadata) for part in parts)


def _joined(key: str, value: Any, limits: Limits) -> Predicate:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) and one for one in value):
        raise invalid(f"Invalid filter: {key} takes a non-empty array of filter expressions")
    parts = [compiled(one, limits) for one in value]
    if key == "$and":
        return lambda metadata: all(part(metadata) for part in parts)
    return lambda metadata: any(part(metadata) for part in parts)


def _comparison(field: str, operator: str, operand: Any, limits: Limits) -> Predicate:
    if operator in ("$eq", "$ne"):
        want = _scalar(field, operator, operand)
        wanted = operator == "$eq"
        return lambda metadata: _any_equal(metadata.get(field), [want]) is wanted
    if operator in _ORDER:
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            raise invalid(f"Invalid filter: {operator} on field '{field}' takes a number")
        return _ordered(field, operator, float(operand))
    if operator in ("$in", "$nin"):
        options = _options(field, operator, operand, limits)
        wanted = operator == "$in"
        return lambda metadata: _any_equal(metadata.get(field), options) is wanted
    if operator == "$not":
        inner = _not(field, operand, limits)
        return lambda metadata: not inner(metadata)
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise invalid(f"Invalid filter: $exists on field '{field}' takes a boolean")
        return lambda metadata: (field in metadata) is operand
    raise invalid(f"Invalid filter: '{operator}' is not a supported operator (field '{field}')")


def _not(field: str, operand: Any, limits: Limits) -> Predicate:
    """What $not negates: conditions on the same field."""
    if not isinstance(operand, dict):
        raise invalid(f"Invalid filter: $not on field '{field}' takes a condition")
    return _clause(field, operand, limits)


def _scalar(field: str, operator: str, operand: Any) -> Value:
    if isinstance(operand, str | bool):
        return operand
    if isinstance(operand, int | float):
        return float(operand)
    raise invalid(f"Invalid filter: {operator} on field '{field}' takes a string, number or boolean")


def _options(field: str, operator: str, operand: Any, limits: Limits) -> list[Value]:
    if not isinstance(operand, list) or not operand:
        raise invalid(f"Invalid filter: {operator} on field '{field}' takes a non-empty array")
    if len(operand) > limits.filter_values:
        raise invalid(
            f"Invalid filter: {operator} takes at most {limits.filter_values} values, got {len(operand)}"
        )
    if any(isinstance(one, bool) for one in operand):
        raise invalid(f"Invalid filter: {operator} on field '{field}' takes strings or numbers")
    return [_scalar(field, operator, one) for one in operand]


def _ordered(field: str, operator: str, want: float) -> Predicate:
    holds = _ORDER[operator]

    def predicate(metadata: Metadata) -> bool:
        have = metadata.get(field)
        return isinstance(have, float) and holds(have, want)

    return predicate


def _any_equal(have: Value | None, options: list[Value]) -> bool:
    """Equal within one type: a boolean is no number."""
    if have is None:
        return False
    if isinstance(have, list):
        return any(one in options for one in have)
    return any(type(one) is type(have) and one == have for one in options)
