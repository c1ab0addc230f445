"""The graph of a flow: every name leads somewhere, every state is reached, and an end is reached from it."""

from questdb_backup.engine.fields import refuse
from questdb_backup.engine.states import Flow, State, WaitState, WorkState, successors


def check_flow(flow: Flow, where: str) -> None:
    """Raise ConfigurationError for a bad name, an unreachable state, or one from which no end is reached."""
    if flow.start_at not in flow.states:
        refuse(f"{where}, field 'StartAt'", f"there is no state '{flow.start_at}'", "name one that exists")
    for state in flow.states.values():
        for name in successors(state):
            if name not in flow.states:
                refuse(f"state '{state.name}'", f"leads to '{name}', which does not exist", "name a state")
    _check_reached(flow)
    _check_ends(flow)


def is_terminal(state: State) -> bool:
    """Whether the flow can end in this state."""
    return state.next is None if isinstance(state, WorkState | WaitState) else not successors(state)


def _check_reached(flow: Flow) -> None:
    reached: set[str] = set()
    ahead = [flow.start_at]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(successors(flow.states[name]))
    for name in flow.states:
        if name not in reached:
            refuse(f"state '{name}'", "no state leads to it", "remove it, or name it in a Next")


def _check_ends(flow: Flow) -> None:
    ending = {name for name, state in flow.states.items() if is_terminal(state)}
    while True:
        more = {
            name
            for name, state in flow.states.items()
            if name not in ending and not ending.isdisjoint(successors(state))
        }
        if not more:
            break
        ending |= more
    for name in flow.states:
        if name not in ending:
            refuse(
                f"state '{name}'", "no terminal state is reached from it", "add an End, a Succeed or a Fail"
            )
