"""A network as Python source that needs nothing but PyTorch, and its weights as safetensors."""

from __future__ import annotations

import inspect
from operator import attrgetter
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, fx, nn

from lrsearch.errors import LrsearchError
from lrsearch.files import replacing
from lrsearch.persistence import WEIGHTS

SOURCE = "model.py"
_ELSEWHERE = "expected PyTorch's own alone; format exported-program has no such limit"

_SOURCE = '''\
"""{title}. Needs PyTorch alone: `model = load()`, then `model(images)`."""

import json
import struct
from pathlib import Path

import torch
from torch import device, inf, nan, nn
{imports}

_DTYPES = {{
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{members}

    def _put(self, path, member):
        *parents, name = path.split(".")
        owner = self
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, nn.Module())
            owner = owner._modules[parent]
        if isinstance(member, nn.Module):
            owner.add_module(name, member)
        else:
            owner.register_buffer(name, member)

{forward}


def load(weights=Path(__file__).with_name("{weights}")):
    """The network with its weights, in eval mode, on the CPU."""
    model = Network()
    model.load_state_dict(read_safetensors(weights))
    return model.eval()


def read_safetensors(path):
    """The tensors of a safetensors file: eight bytes of length, a JSON header, the numbers."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = {{}}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            data = torch.frombuffer(content, dtype=torch.uint8, offset=start)[begin:end].clone()
            tensors[name] = data.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
'''


def write_plain_module(traced: fx.GraphModule, folder: Path, title: str) -> None:
    """Write ``model.py`` and ``weights.safetensors``.

    Args:
        traced: the network, in eval mode; its leaf modules are of ``torch.nn``.
        folder: exists.
        title: a sentence for the file's head, without its full stop.

    Raises:
        LrsearchError: the network uses a module or a function that is not PyTorch's.
    """
    code = traced.graph.python_code("self")
    layers = _targets(traced, "call_module")
    tensors = _targets(traced, "get_attr")
    members = [(path, _constructor(path, traced.get_submodule(path))) for path in layers]
    members += [(path, _empty(attrgetter(path)(traced))) for path in tensors]
    source = _SOURCE.format(
        title=title,
        imports="\n".join(_imports(code.globals)),
        members="\n".join(f"        self._put({path!r}, {text})" for path, text in members),
        forward="\n".join(f"    {line}" if line else "" for line in code.src.strip().splitlines()),
        weights=WEIGHTS,
    )
    state = {path: attrgetter(path)(traced) for path in tensors}
    for path in layers:
        state |= {f"{path}.{key}": value for key, value in traced.get_submodule(path).state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file({key: value.detach().cpu().clone().contiguous() for key, value in state.items()}, temporary)
    with replacing(folder / SOURCE) as temporary:
        temporary.write_text(source)


def _targets(traced: fx.GraphModule, operation: str) -> list[str]:
    """What the forward pass uses, each once, in order of use."""
    return list(dict.fromkeys(str(node.target) for node in traced.graph.nodes if node.op == operation))


def _empty(tensor: Tensor) -> str:
    return f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"


def _constructor(name: str, module: nn.Module) -> str:
    """The call that makes a module of ``torch.nn`` like this one, weights aside."""
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        raise LrsearchError(f"layer {name!r} is a {kind.__module__}.{kind.__name__}, {_ELSEWHERE}")
    arguments = []
    for parameter in inspect.signature(kind.__init__).parameters.values():
        known = _argument(module, parameter)
        if parameter.name != "self" and known != parameter.default:
            arguments.append(f"{parameter.name}={known!r}")
    return f"nn.{kind.__name__}({', '.join(arguments)})"


def _argument(module: nn.Module, parameter: inspect.Parameter) -> Any:
    """The value that a constructor's parameter had, its default where the module does not remember it."""
    default = parameter.default
    if parameter.name in ("device", "dtype"):
        return default
    value = getattr(module, parameter.name, default)
    if parameter.name == "bias":
        return value is not None
    plain = value is None or isinstance(value, (bool, int, float, str, tuple))
    return value if plain else default


def _imports(names: dict[str, Any]) -> list[str]:
    """Import statements for what traced code calls by names of its own."""
    provided = {"torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "getattr"}
    lines = []
    for name, value in sorted(names.items()):
        if name in provided:
            continue
        home, label = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        if home.split(".")[0] not in ("torch", "_operator", "math") or "." in label:
            raise LrsearchError(f"the network calls {home}.{label}, {_ELSEWHERE}")
        lines.append(f"from {home} import {label} as {name}")
    return lines
