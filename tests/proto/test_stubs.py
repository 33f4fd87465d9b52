"""The committed protobuf stubs are what the .proto files give."""

from importlib import resources
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_stubs_are_what_the_proto_files_give(tmp_path: Path) -> None:
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").glob("*.proto"))
    wellknown = resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", f"-I{ROOT}", f"-I{wellknown}", *outputs, *protos]) == 0
    assert stubs(ROOT / "proto") == stubs(tmp_path / "proto")


def stubs(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.glob("*_pb2*.py*"))}
