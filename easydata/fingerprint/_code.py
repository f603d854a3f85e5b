"""What a code object runs, and the names from outside that it uses."""

from __future__ import annotations

import dis
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import NamedTuple

__all__ = ["Import", "References", "loaded_constants", "references", "signature"]

_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_STORES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_LOCALS = {*dis.haslocal, *dis.hasfree}
_NO_LOADS = {"LOAD_CLOSURE", "LOAD_FAST_AND_CLEAR"}  # of a cell; of what a comprehension hides
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_FILLERS = {"EXTENDED_ARG", "CACHE", "NOP", "PUSH_NULL"}


class Import(NamedTuple):
    """What one name of an import statement binds.

    Attributes:
        module: what is imported, with the dots of a relative import.
        item: what is taken `from` it, or nothing.
        whole: without an item, whether the module itself is bound and not its first package.
        variable: the local variable that is bound, or nothing where another thing is.
    """

    module: str
    item: str
    whole: bool
    variable: str


@dataclass
class References:
    """The names from outside that a code object and those inside it use.

    Attributes:
        loads: name of a global -> the chains of attributes that are read from it, `()` where it
            is used as it is.
        bound: the names that the body of a class binds: one of these may be loaded and no global.
        assigned: the globals that it assigns or deletes.
        locals: name of a local variable -> the same chains.
        imports: what its import statements bind.
        attributes: every name of a global or an attribute that is read, and every text.
    """

    loads: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    bound: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)
    locals: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    imports: set[Import] = field(default_factory=set)
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
    """The constants by index, with None for docstrings: those of functions are not loaded."""
    operations = [op for op in dis.get_instructions(code) if op.opname not in _FILLERS]
    followed = zip(operations, [*operations[1:], None], strict=True)
    used = {
        op.arg
        for op, after in followed
        if op.opcode in dis.hasconst
        and (after is None or (after.opname, after.argval) != ("STORE_NAME", "__doc__"))
    }
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
            found.imports.update(_imports(operations, index))
        elif operation.opcode in _LOCALS and operation.opname not in _NO_LOADS:
            for local, chain in _loaded(operations, index):
                found.locals[local].add(chain)
        if operation.opname.startswith("LOAD") and isinstance(name, str):
            found.attributes.add(name)


def _loaded(operations: list[dis.Instruction], index: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The local variables that an instruction loads, with their chains."""
    operation = operations[index]
    # Since Python 3.13 one instruction may store and load, or load two.
    names = operation.argval if isinstance(operation.argval, tuple) else (operation.argval,)
    actions = re.findall("LOAD|STORE", operation.opname)
    for place, (action, name) in enumerate(zip(actions, names, strict=False), 1):
        if action == "LOAD":
            yield name, _chain(operations, index + 1) if place == len(names) else ()


def _imports(operations: list[dis.Instruction], index: int) -> Iterator[Import]:
    level, names = (operations[index - back].argval for back in (2, 1))
    module = "." * level + operations[index].argval
    after = index + 1
    if names:
        for name in names:  # each is taken and stored
            yield Import(module, name, True, _variable(operations[after + 1]))
            after += 2
    elif operations[after].opname == "IMPORT_FROM":  # `import a.b as c`
        while not operations[after].opname.startswith("STORE"):
            after += 1
        yield Import(module, "", True, _variable(operations[after]))
    else:
        yield Import(module, "", "." not in module, _variable(operations[after]))


def _variable(store: dis.Instruction) -> str:
    if store.opcode not in _LOCALS:
        return ""
    name: str = store.argval[0] if isinstance(store.argval, tuple) else store.argval
    return name


def _chain(operations: list[dis.Instruction], start: int) -> tuple[str, ...]:
    chain = []
    for operation in operations[start:]:
        if operation.opname not in _ATTRIBUTES:
            break
        chain.append(operation.argval)
    return tuple(chain)
