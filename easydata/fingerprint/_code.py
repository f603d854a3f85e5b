"""What a code object runs, and the names from outside that it uses."""

from __future__ import annotations

import dis
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType

__all__ = ["References", "loaded_constants", "references", "signature"]

_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_STORES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_FILLERS = {"EXTENDED_ARG", "CACHE", "NOP", "PUSH_NULL"}


@dataclass
class References:
    """The names from outside that a code object and those inside it use.

    Attributes:
        loads: name of a global -> the chains of attributes that are read from it, `()` where it
            is used as it is.
        bound: the names that the body of a class binds: one of these may be loaded and no global.
        assigned: the globals that it assigns or deletes.
        imports: (level, module, names after `from ... import`) of its import statements.
        attributes: every name of a global or an attribute.
    """

    loads: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    bound: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)
    imports: set[tuple[int, str, tuple[str, ...]]] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


def _nested(code: CodeType) -> Iterator[CodeType]:
    """The code and every code object among its constants, at any depth."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def signature(code: CodeType) -> tuple[object, ...]:
    """What the code runs, without its constants: nothing that follows from where it is written."""
    # co_code is the code as compiled, whatever the interpreter has specialised or instrumented.
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_name, code.co_code, code.co_exceptiontable, counts, names


def loaded_constants(code: CodeType) -> list[object]:
    """The constants by index, with None for those that no instruction loads: the docstring."""
    used = {op.arg for op in dis.get_instructions(code) if op.opcode in dis.hasconst}
    # Since Python 3.13 the body of a class holds the line that it starts at.
    line = code.co_firstlineno if "__firstlineno__" in code.co_names else None
    return [
        None if index not in used or (type(value) is int and value == line) else value
        for index, value in enumerate(code.co_consts)
    ]


def references(code: CodeType) -> References:
    """The names from outside that `code` and the code inside it use."""
    found = References()
    for inner in _nested(code):
        found.attributes.update(inner.co_names)
        _collect(inner, found)
    return found


def _collect(code: CodeType, found: References) -> None:
    operations = [op for op in dis.get_instructions(code) if op.opname not in _FILLERS]
    for index, operation in enumerate(operations):
        name = operation.argval
        if operation.opname in _LOADS:
            found.loads[name].add(_chain(operations, index + 1))
        elif operation.opname == "STORE_NAME":
            found.bound.add(name)
        elif operation.opname in _STORES:
            found.assigned.add(name)
        elif operation.opname == "IMPORT_NAME":
            level, names = (operations[index - back].argval for back in (2, 1))
            found.imports.add((level, name, names or ()))


def _chain(operations: list[dis.Instruction], start: int) -> tuple[str, ...]:
    chain = []
    for operation in operations[start:]:
        if operation.opname not in _ATTRIBUTES:
            break
        chain.append(operation.argval)
    return tuple(chain)
