"""Parsing one state of a definition; a field, type, comparator or value not implemented is refused."""

from collections.abc import Callable
from typing import TypedDict

from questdb_backup.engine.errors import ALL, RESERVED_NAMES
from questdb_backup.engine.fields import Fields, refuse
from questdb_backup.engine.paths import ROOT, Path, Template, parse_path, parse_template
from questdb_backup.engine.retry import Retrier
from questdb_backup.engine.states import (
    Catcher,
    ChoiceRule,
    ChoiceState,
    Comparator,
    FailState,
    Flow,
    ItemReader,
    MapState,
    State,
    SucceedState,
    TaskState,
    WaitState,
)

ParseFlow = Callable[[Fields], Flow]

_LABEL_LIMIT = 40
_S3_READER = ":states:::s3:getObject"
_OPERANDS: dict[Comparator, tuple[type, ...]] = {
    Comparator.STRING_EQUALS: (str,),
    Comparator.BOOLEAN_EQUALS: (bool,),
    Comparator.NUMERIC_GREATER_THAN: (int, float),
    Comparator.IS_PRESENT: (bool,),
}


class _Common(TypedDict):
    name: str
    input_path: Path | None
    output_path: Path | None


def state(name: str, body: object, parse_flow: ParseFlow) -> State:
    """A state from its JSON object; `parse_flow` reads the ItemProcessor of a Map.

    Raise ConfigurationError that names the state and the field.
    """
    fields = Fields(body, f"state '{name}'")
    fields.drop_comment()
    kind = fields.text("Type")
    if kind not in _PARSERS:
        known = ", ".join(_PARSERS)
        refuse(fields.place("Type"), f"the local engine does not implement '{kind}'", f"it knows {known}")
    parsed = _PARSERS[kind](name, fields, parse_flow)
    fields.done()
    return parsed


def _common(name: str, fields: Fields) -> _Common:
    return {
        "name": name,
        "input_path": fields.nullable_path("InputPath", ROOT),
        "output_path": fields.nullable_path("OutputPath", ROOT),
    }


def _task(name: str, fields: Fields, _parse_flow: ParseFlow) -> TaskState:
    return TaskState(
        **_common(name, fields),
        resource=fields.text("Resource"),
        parameters=_template(fields, "Parameters"),
        timeout_seconds=fields.optional_integer("TimeoutSeconds", least=1),
        result_path=fields.nullable_path("ResultPath", ROOT, context=False),
        retry=_retry(fields),
        catch=_catch(fields),
        next=_next(fields),
    )


def _map(name: str, fields: Fields, parse_flow: ParseFlow) -> MapState:
    if fields.take("ToleratedFailurePercentage", 0) != 0:
        refuse(fields.place("ToleratedFailurePercentage"), "only 0 is implemented", "write 0")
    if fields.has("ItemReader") and fields.has("ItemsPath"):
        refuse(fields.place("ItemsPath"), "stands beside an ItemReader", "keep one of the two")
    if fields.has("MaxConcurrency") and fields.has("MaxConcurrencyPath"):
        refuse(fields.place("MaxConcurrencyPath"), "stands beside MaxConcurrency", "keep one of the two")
    path = fields.path("MaxConcurrencyPath", ROOT) if fields.has("MaxConcurrencyPath") else None
    return MapState(
        **_common(name, fields),
        label=_label(name, fields),
        processor=_processor(fields, parse_flow),
        item_reader=_item_reader(fields),
        items_path=fields.path("ItemsPath", ROOT),
        item_selector=_template(fields, "ItemSelector", items=True),
        max_concurrency=fields.integer("MaxConcurrency", 0, least=0),
        max_concurrency_path=path,
        result_path=fields.nullable_path("ResultPath", ROOT, context=False),
        catch=_catch(fields),
        next=_next(fields),
    )


def _choice(name: str, fields: Fields, _parse_flow: ParseFlow) -> ChoiceState:
    rules = fields.objects("Choices")
    if not rules:
        refuse(fields.place("Choices"), "holds no rule", "write at least one")
    return ChoiceState(
        **_common(name, fields),
        rules=tuple(_rule(body, f"{fields.place('Choices')}[{n}]") for n, body in enumerate(rules)),
        default=fields.text("Default") if fields.has("Default") else None,
    )


def _wait(name: str, fields: Fields, _parse_flow: ParseFlow) -> WaitState:
    if fields.has("Seconds") == fields.has("SecondsPath"):
        refuse(fields.where, "has not exactly one of 'Seconds' and 'SecondsPath'", "write one of the two")
    from_path = fields.has("SecondsPath")
    return WaitState(
        **_common(name, fields),
        seconds=fields.path("SecondsPath", ROOT) if from_path else fields.integer("Seconds", 0, least=0),
        next=_next(fields),
    )


def _succeed(name: str, fields: Fields, _parse_flow: ParseFlow) -> SucceedState:
    return SucceedState(**_common(name, fields))


def _fail(name: str, fields: Fields, _parse_flow: ParseFlow) -> FailState:
    return FailState(name=name, error=_text_or_path(fields, "Error"), cause=_text_or_path(fields, "Cause"))


_PARSERS: dict[str, Callable[[str, Fields, ParseFlow], State]] = {
    "Task": _task,
    "Map": _map,
    "Choice": _choice,
    "Wait": _wait,
    "Succeed": _succeed,
    "Fail": _fail,
}


def _next(fields: Fields) -> str | None:
    end = fields.take("End", False)
    if end not in (True, False) or end == fields.has("Next"):
        refuse(fields.where, "has not exactly one of 'Next' and 'End'", "write one of the two")
    return None if end else fields.text("Next")


def _template(fields: Fields, name: str, *, items: bool = False) -> Template | None:
    return parse_template(fields.take(name), fields.place(name), items=items) if fields.has(name) else None


def _text_or_path(fields: Fields, name: str) -> str | Path:
    if fields.has(name) and fields.has(name + "Path"):
        refuse(fields.place(name), f"stands beside {name}Path", "keep one of the two")
    return fields.path(name + "Path", ROOT) if fields.has(name + "Path") else fields.text(name, "")


def _label(name: str, fields: Fields) -> str:
    label = fields.text("Label", name)
    if len(label) > _LABEL_LIMIT:
        refuse(fields.place("Label"), f"is longer than {_LABEL_LIMIT}", "give a shorter Label")
    return label


def _processor(fields: Fields, parse_flow: ParseFlow) -> Flow:
    processor = Fields(fields.take("ItemProcessor"), fields.place("ItemProcessor"))
    processor.drop_comment()
    config = Fields(processor.take("ProcessorConfig"), processor.place("ProcessorConfig"))
    for name, value in (("Mode", "DISTRIBUTED"), ("ExecutionType", "STANDARD")):
        if config.text(name) != value:
            refuse(config.place(name), f"only {value} is implemented", f"write {value}")
    config.done()
    flow = parse_flow(processor)
    processor.done()
    return flow


def _item_reader(fields: Fields) -> ItemReader | None:
    if not fields.has("ItemReader"):
        return None
    reader = Fields(fields.take("ItemReader"), fields.place("ItemReader"))
    if not reader.text("Resource").endswith(_S3_READER):
        refuse(reader.place("Resource"), "only s3:getObject is implemented", f"write arn:aws{_S3_READER}")
    config = Fields(reader.take("ReaderConfig"), reader.place("ReaderConfig"))
    if config.text("InputType") != "JSON":
        refuse(config.place("InputType"), "only JSON is implemented", "write JSON")
    config.done()
    template = parse_template(reader.take("Parameters"), reader.place("Parameters"))
    if not isinstance(template.body, dict) or set(template.body) != {"Bucket", "Key"}:
        refuse(reader.place("Parameters"), "does not hold Bucket and Key alone", "give these two")
    reader.done()
    return ItemReader(parameters=template)


def _rule(body: object, where: str) -> ChoiceRule:
    fields = Fields(body, where)
    fields.drop_comment()
    variable = parse_path(fields.take("Variable"), fields.place("Variable"))
    present = [comparator for comparator in Comparator if fields.has(comparator)]
    if len(present) != 1:
        refuse(
            where, f"has not exactly one of {', '.join(Comparator)}", "other comparators are not implemented"
        )
    comparator = present[0]
    operand = fields.take(comparator)
    kinds = _OPERANDS[comparator]
    if not isinstance(operand, str | int | float) or not _is_a(operand, kinds):
        refuse(fields.place(comparator), f"{operand!r} has the wrong type", f"write a {kinds[0].__name__}")
    rule = ChoiceRule(variable=variable, comparator=comparator, operand=operand, next=fields.text("Next"))
    fields.done()
    return rule


def _is_a(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _retry(fields: Fields) -> tuple[Retrier, ...]:
    bodies = fields.objects("Retry")
    place = fields.place("Retry")
    retriers = tuple(_retrier(Fields(body, f"{place}[{n}]")) for n, body in enumerate(bodies))
    _check_all_last([retrier.error_equals for retrier in retriers], place)
    return retriers


def _retrier(fields: Fields) -> Retrier:
    jitter = fields.text("JitterStrategy", "NONE")
    if jitter not in ("NONE", "FULL"):
        refuse(fields.place("JitterStrategy"), f"'{jitter}' is not known", "write FULL or NONE")
    rate = fields.take("BackoffRate", 2.0)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or rate < 1:
        refuse(fields.place("BackoffRate"), f"{rate!r} is not a number from 1", "write 1 or more")
    interval = fields.integer("IntervalSeconds", 1, least=1)
    longest = fields.optional_integer("MaxDelaySeconds", least=1)
    if longest is not None and longest <= interval:
        refuse(fields.place("MaxDelaySeconds"), "is not more than IntervalSeconds", "raise it")
    retrier = Retrier(
        error_equals=_error_equals(fields),
        interval_seconds=interval,
        max_attempts=fields.integer("MaxAttempts", 3, least=0),
        backoff_rate=float(rate),
        max_delay_seconds=longest,
        full_jitter=jitter == "FULL",
    )
    fields.done()
    return retrier


def _catch(fields: Fields) -> tuple[Catcher, ...]:
    bodies = fields.objects("Catch")
    place = fields.place("Catch")
    catchers = tuple(_catcher(Fields(body, f"{place}[{n}]")) for n, body in enumerate(bodies))
    _check_all_last([catcher.error_equals for catcher in catchers], place)
    return catchers


def _catcher(fields: Fields) -> Catcher:
    fields.drop_comment()
    catcher = Catcher(
        error_equals=_error_equals(fields),
        next=fields.text("Next"),
        result_path=fields.nullable_path("ResultPath", ROOT, context=False),
    )
    fields.done()
    return catcher


def _error_equals(fields: Fields) -> tuple[str, ...]:
    names = [name for name in fields.objects("ErrorEquals") if isinstance(name, str)]
    place = fields.place("ErrorEquals")
    if not names:
        refuse(place, "names no error", "list at least one")
    for name in names:
        if name.startswith("States.") and name not in RESERVED_NAMES:
            refuse(place, f"'{name}' is no error this engine reports", "names with States. are reserved")
    if ALL in names and len(names) > 1:
        refuse(place, f"{ALL} does not stand alone", "give it an entry of its own")
    return tuple(names)


def _check_all_last(entries: list[tuple[str, ...]], place: str) -> None:
    if any(ALL in names for names in entries[:-1]):
        refuse(place, f"{ALL} is not in the last entry", "move it to the end")
