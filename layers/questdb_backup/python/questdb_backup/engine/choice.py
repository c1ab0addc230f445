"""Choice: which rule matches. A value of another type than the comparator's does not match."""

from collections.abc import Mapping

from questdb_backup.engine.errors import NO_CHOICE_MATCHED, StateError
from questdb_backup.engine.paths import MissingPathError
from questdb_backup.engine.states import ChoiceRule, ChoiceState, Comparator


def choose(state: ChoiceState, value: object, context: Mapping[str, object]) -> str:
    """The next state's name.

    Raises:
        MissingPathError: A rule's Variable names nothing, and the rule does not ask just that.
        StateError: ``States.NoChoiceMatched``.
    """
    for rule in state.rules:
        if _matches(rule, value, context):
            return rule.next
    if state.default is None:
        raise StateError(NO_CHOICE_MATCHED, f"No choice rule of the state '{state.name}' matched its input.")
    return state.default


def _matches(rule: ChoiceRule, value: object, context: Mapping[str, object]) -> bool:
    try:
        found = rule.variable.select(value, context)
    except MissingPathError:
        if rule.comparator is Comparator.IS_PRESENT:
            return rule.operand is False
        raise
    match rule.comparator:
        case Comparator.IS_PRESENT:
            return rule.operand is True
        case Comparator.STRING_EQUALS:
            return found == rule.operand
        case Comparator.BOOLEAN_EQUALS:
            return isinstance(found, bool) and found == rule.operand
        case Comparator.NUMERIC_GREATER_THAN:
            return (
                isinstance(found, int | float)
                and not isinstance(found, bool)
                and isinstance(rule.operand, int | float)
                and found > rule.operand
            )
