"""TorchScript modules as plain ones: they are run once, and the calls that they make are noted.

torch.export does not follow TorchScript. A ScriptModule has no Python that could be read instead, but every call that
it makes passes torch's dispatcher.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx, nn


def is_scripted(model: nn.Module) -> bool:
    """Whether a module, or a part of it, is TorchScript."""
    return any(isinstance(each, torch.jit.ScriptModule) for each in model.modules())


def plain(model: nn.Module, image: Tensor) -> nn.Module:
    """A module that makes the calls which `model` makes for `image`, with the same weights under the same names."""
    from torch.fx.experimental.proxy_tensor import make_fx

    if not _is_frozen(model):
        model.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced: fx.GraphModule = make_fx(lambda x: model(x), pre_dispatch=True)(image)
    names = {value.data_ptr(): name for name, value in (*model.named_buffers(), *model.named_parameters())}
    for number, node in enumerate(traced.graph.nodes):
        if node.op == "get_attr":
            tensor = getattr(traced, str(node.target))
            node.target = _kept(traced, names.get(tensor.data_ptr(), f"constant_{number}"), tensor)
    traced.recompile()
    return traced


def _is_frozen(model: nn.Module) -> bool:
    """Whether TorchScript froze it, which leaves it without the state of training."""
    return not hasattr(model, "training")


def _kept(root: nn.Module, name: str, tensor: Tensor) -> str:
    """Keep a tensor under its name of several parts; weights of a frozen module are weights again."""
    *path, last = name.split(".")
    owner = root
    for part in path:
        if part not in dict(owner.named_children()):
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if last in dict(owner.named_parameters(recurse=False)) or last in dict(owner.named_buffers(recurse=False)):
        return name
    if isinstance(tensor, nn.Parameter) or (tensor.is_floating_point() and not path):
        owner.register_parameter(last, nn.Parameter(tensor.detach()))
    else:
        owner.register_buffer(last, tensor)
    return name
