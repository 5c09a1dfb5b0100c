"""Turns `protos/` into what is made of them.

python .ci/protos.py generate             prints gen/: Python messages, stubs, their types, api.binpb
python .ci/protos.py check-generated      fails when gen/ is not what `generate` would print
python .ci/protos.py describe FILE        writes the descriptor set, with comments, that buf reads
"""

import filecmp
import os
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from google.rpc import status_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "gen"
GOOGLEAPIS = Path(status_pb2.__file__).parents[2]
WELL_KNOWN_TYPES = Path(grpc_tools.__file__).parent / "_proto"

VALIDATE = "buf/validate/validate.proto"
# Errors carry these in their details. No proto of ours imports the file (an unused import fails
# lint), yet without it in the descriptor set Envoy answers an error without a body.
ERROR_DETAILS = "google/rpc/error_details.proto"
STATUS = "google/rpc/status.proto"


def our_protos() -> list[str]:
    """Returns the paths of our protos as protoc wants them, in a fixed order."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def run_protoc(*arguments: str) -> None:
    """Runs protoc over our sources and the imported ones; ends the program when it fails.

    `buf/validate/validate.proto` has no source here: the registry that serves it is not reachable
    offline, but protovalidate carries its compiled descriptor, which protoc takes as well.
    """
    validate = descriptor_pb2.FileDescriptorSet()
    validate.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch, "validate.binpb")
        compiled.write_bytes(validate.SerializeToString(deterministic=True))
        status = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={compiled}",
                *(f"-I{path}" for path in (PROTOS, GOOGLEAPIS, WELL_KNOWN_TYPES)),
                *arguments,
            ]
        )
    if status:
        sys.exit(status)


def generate(target: Path) -> None:
    """Prints everything into the folder `target`, which ends up holding nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    # protoc finds its plugins on PATH; those of this interpreter are the pinned ones.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    protos = our_protos()
    api = target / "api.binpb"
    run_protoc(f"--descriptor_set_out={api}", "--include_imports", *protos, ERROR_DETAILS)
    # Their Python comes installed, their types do not.
    googleapis = {
        file.name
        for file in descriptor_pb2.FileDescriptorSet.FromString(api.read_bytes()).file
        if file.name.startswith(("google/api/", "google/rpc/"))
    }
    run_protoc(f"--mypy_out=quiet,readable_stubs:{target}", *sorted(googleapis | {STATUS}))
    run_protoc(
        f"--python_out={target}", f"--mypy_out=quiet,readable_stubs:{target}", *protos, VALIDATE
    )
    run_protoc(
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out=quiet,readable_stubs,only_async:{target}",
        *(path for path in protos if path.endswith("_service.proto")),
    )


def check_generated() -> None:
    """Ends the program when `gen/` differs from a fresh print."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch, "gen")
        generate(fresh)
        stale = sorted(differences(fresh, GENERATED))
    if stale:
        sys.exit(f"gen/ is not what protos/ say; run `make gen`: {', '.join(stale)}")


def differences(left: Path, right: Path) -> set[str]:
    """Returns the relative paths of the files that are not the same in both folders."""
    paths = {
        path.relative_to(folder).as_posix()
        for folder in (left, right)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    same, _, _ = filecmp.cmpfiles(left, right, paths, shallow=False)
    return paths - set(same)


def main() -> None:
    """Runs the command named on the command line."""
    match sys.argv[1:]:
        case ["generate"]:
            generate(GENERATED)
        case ["check-generated"]:
            check_generated()
        case ["describe", path]:
            run_protoc(
                f"--descriptor_set_out={path}",
                "--include_imports",
                "--include_source_info",
                *our_protos(),
            )
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
