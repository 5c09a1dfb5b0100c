"""The contract of import-linter that holds the anatomy of a service.

A row of the table reads `file: what it may import`, where a word is
- a file or folder of the same service (`domain`); its own name goes without saying;
- a part of the kit (`kit`, `kit.errors`);
- `generated`: what is made of protos, and the protobuf runtime;
- `third-party`: any installed package;
- a package by its name (`grpc`).
The standard library is open to all. A file without a row is a finding too: a new kind of file is a
decision.
"""

import sys
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

OURS = {"services", "conductor", "conductor_ai", "tests"}
GENERATED = {"conductor", "buf", "google"}


class Anatomy(Contract):
    """Every service under `container` but the `excepted` ones has the files of the `table`."""

    container = fields.StringField()
    excepted = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    table = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compares each import of each file with its row."""
        del verbose
        container = str(self.container)
        excepted = cast("list[str]", self.excepted)
        rows = {
            name.strip(): words.split()
            for name, _, words in (row.partition(":") for row in cast("list[str]", self.table))
        }
        findings = []
        for service in sorted(graph.find_children(container)):
            if service.rpartition(".")[2] in excepted:
                continue
            for module in sorted(graph.find_descendants(service)):
                name = module.removeprefix(f"{service}.").partition(".")[0]
                if name not in rows:
                    findings.append(f"{module}: the table has no row for `{name}`")
                    continue
                findings += [
                    f"{module} imports {imported}"
                    for imported in sorted(graph.find_modules_directly_imported_by(module))
                    if not may_import(service, [name, *rows[name]], imported)
                ]
        return ContractCheck(kept=not findings, metadata={"findings": findings})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints one line for each finding."""
        for finding in check.metadata["findings"]:
            output.print_error(finding)


def may_import(service: str, words: list[str], imported: str) -> bool:
    """Says whether a row's words cover the module `imported`."""
    root = imported.partition(".")[0]
    if root in sys.stdlib_module_names:
        return True
    if root == "services":
        allowed = [
            f"services.{word}" if word.partition(".")[0] == "kit" else f"{service}.{word}"
            for word in words
        ]
        return any(imported == name or imported.startswith(f"{name}.") for name in allowed)
    if root in GENERATED and "generated" in words:
        return True
    return root in words or (root not in OURS and "third-party" in words)
