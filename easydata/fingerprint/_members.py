"""What a class consists of: what is written in it, less what Python and libraries add to it."""

from __future__ import annotations

import abc
import enum
import types
from typing import Any

from easydata.fingerprint._values import Unknown, attributes

__all__ = ["members", "order", "registered"]

_NOT_OF_A_CLASS = {
    *("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "_abc_impl"),
    *("__slotnames__", "__firstlineno__", "__static_attributes__", "__annotations_cache__"),
}
# What Enum keeps beside the members follows from these and the version of Python.
_NOT_OF_AN_ENUM = {
    *("_member_names_", "_member_map_", "_value2member_map_", "_member_type_", "_use_args_"),
    *("_hashable_values_", "_unhashable_values_", "_unhashable_values_map_"),
    *("_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_"),
}
_NOT_OF_A_MEMBER = {"_name_", "__objclass__", "_sort_order_", "_inverted_"}
# What pydantic makes from the fields, decorators and settings: it holds addresses.
_NOT_OF_A_MODEL = {
    *("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"),
    *("__pydantic_complete__", "__pydantic_setattr_handlers__", "__pydantic_parent_namespace__"),
}


def members(kind: type) -> dict[str, Any]:
    """What the body of a class has defined, by name; what a member of an enum holds.

    Raises:
        Unknown: it is a pydantic model with fields of types that are not known yet.
    """
    held = {name: value for name, value in vars(kind).items() if name not in _NOT_OF_A_CLASS}
    if held.get("__pydantic_complete__") is False:
        raise Unknown("a pydantic model that is not complete (call its model_rebuild)")
    if "__pydantic_complete__" in held:
        return {name: value for name, value in held.items() if name not in _NOT_OF_A_MODEL}
    if "__attrs_attrs__" in held and _is_generated(held.get("__hash__")):
        del held["__hash__"]  # holds a random number
    if isinstance(kind, enum.EnumMeta):
        own = {name: value for name, value in held.items() if name not in _NOT_OF_AN_ENUM}
        named: dict[str, enum.Enum] = dict(kind.__members__)
        return own | {name: _inside(member) for name, member in named.items()}
    return held


def _is_generated(value: object) -> bool:
    return isinstance(value, types.FunctionType) and value.__code__.co_filename.startswith(
        "<attrs generated "
    )


def order(kind: type) -> tuple[str, ...]:
    """The names of an enum's members in their order; nothing for another class."""
    return tuple(kind.__members__) if isinstance(kind, enum.EnumMeta) else ()


def registered(kind: type) -> list[type]:
    """The classes that were registered with an abstract class, by name."""
    if not isinstance(kind, abc.ABCMeta):
        return []
    references = abc._get_dump(kind)[0]  # type: ignore[attr-defined]  # noqa: SLF001 - only there
    classes = [held for held in (reference() for reference in references) if held is not None]
    return sorted(classes, key=lambda held: (str(held.__module__), held.__qualname__))


def _inside(member: enum.Enum) -> object:
    """What a member holds: of the type that its enum is made from, and of its own."""
    held = attributes(member)
    made_from: Any = vars(type(member))["_member_type_"]
    content = getattr(made_from, "__getnewargs__", None)
    return (
        () if content is None else content(member),
        {name: held[name] for name in sorted(held) if name not in _NOT_OF_A_MEMBER},
    )
