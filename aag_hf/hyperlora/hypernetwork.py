"""Hypernetworks: a question's features in, the A and B of every adapted layer out."""

import hashlib
import re
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from aag_hf.hyperlora.config import HyperLoraConfig
from aag_hf.hyperlora.document_states import DocumentStates


@dataclass(frozen=True)
class Site:
    """One adapted linear layer.

    Attributes:
        kind: Sites of the same kind share a head and are generated together.
        position: The site's place among the sites of its kind.
    """

    name: str
    kind: str
    position: int
    in_features: int
    out_features: int


Matrices = tuple[torch.Tensor, torch.Tensor]


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sort key under which layer 10 follows layer 9: a checkpoint must not depend on the order of modules."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def make_sites(layers: dict[str, tuple[int, int]], config: HyperLoraConfig) -> dict[str, Site]:
    """Group the adapted layers into kinds.

    Args:
        layers: ``(in_features, out_features)`` by module name; layers of one block in the order the block defines them
            (the paper numbers q before v).
        config: Its `hypernetwork` says what layers share: ``"mlp"`` the role, which is the path without layer numbers
            and without its last part; the others that last part (q_proj).

    Returns:
        Sites by module name.
    """
    sites: dict[str, Site] = {}
    counts: dict[str, int] = {}
    for name in sorted(layers, key=lambda name: natural_order(name.rpartition(".")[0])):
        path, _, leaf = name.rpartition(".")
        shared = leaf if config.hypernetwork != "mlp" else re.sub(r"\.\d+(?=\.|$)", "", path).replace(".", "_")
        kind = f"{shared}_{layers[name][0]}x{layers[name][1]}"
        sites[name] = Site(name, kind, counts.setdefault(kind, 0), *layers[name])
        counts[kind] += 1
    return sites


class HyperNetwork(nn.Module):
    """What all hypernetworks share: the optional static part.

    Parameters are only touched by submodules' ``__call__``: that is where ZeRO-3, FSDP and offloading gather them.

    Attributes:
        reads: What it makes adapters from.
    """

    reads: Literal["features", "documents"] = "features"

    def __init__(self, config: HyperLoraConfig, sites: dict[str, Site]):
        super().__init__()
        self.r = config.r
        self.static_r = config.static_r or config.r
        self.sites = sites
        self.feature_dim = config.feature_dim
        self.shapes = {site.kind: (site.in_features, site.out_features) for site in sites.values()}
        self.counts = {kind: sum(site.kind == kind for site in sites.values()) for kind in self.shapes}
        self._fingerprint: tuple[Any, str] | None = None
        self.static_a = nn.ModuleDict()
        self.static_b = nn.ModuleDict()
        if config.static:
            for kind, (d_in, d_out) in self.shapes.items():
                self.static_a[kind] = nn.Embedding(self.counts[kind], d_in * self.static_r)
                self.static_b[kind] = nn.Embedding(self.counts[kind], self.static_r * d_out)

    def reset_static(self, init_weights: bool) -> None:
        for kind, table in self.static_a.items():
            bound = self.shapes[kind][0] ** -0.5
            nn.init.uniform_(table.weight, -bound, bound)
        if init_weights:
            for table in self.static_b.values():
                nn.init.zeros_(table.weight)

    def generate(self, features: torch.Tensor, kind: str, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The generated part: ``(sites, batch, d_in · r)`` and ``(sites, batch, r · d_out)``; see `matrices`."""
        raise NotImplementedError

    def in_training(self, given: torch.Tensor | DocumentStates) -> torch.Tensor | DocumentStates:
        """What the network reads of what a training pass was given: the same, unless a subclass disturbs it."""
        return given

    def matrices(self, given: torch.Tensor, kind: str, position: int | None = None) -> list[Matrices]:
        """A and B of the sites of one kind, for every question of the batch, in one matrix product a head.

        Args:
            given: What the network reads: features ``(batch, feature_dim)``.
            kind: The kind of sites.
            position: One site of the kind; ``None`` for all of them.

        Returns:
            The generated A ``(sites, batch, d_in, r)`` and B ``(sites, batch, r, d_out)`` and, with a static part, its
            A ``(sites, 1, d_in, static_r)`` and B ``(sites, 1, static_r, d_out)``. A site's update is the sum of their
            products.
        """
        positions = self.positions(kind, position, given.device)
        a, b = self.generate(given, kind, positions)
        return [(a.unflatten(-1, (-1, self.r)), b.unflatten(-1, (self.r, -1))), *self.static_matrices(kind, positions)]

    def fingerprint(self) -> str:
        """A digest of its weights, which tells it from others; rounded, so that their type makes no difference."""
        tensors = dict(chain(self.named_parameters(), self.named_buffers()))
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors.values())
        if self._fingerprint is None or self._fingerprint[0] != state:
            digest = hashlib.sha256()
            for name, tensor in sorted(tensors.items()):
                digest.update(name.encode())
                digest.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().data)
            self._fingerprint = (state, digest.hexdigest()[:32])
        return self._fingerprint[1]

    def positions(self, kind: str, position: int | None, device: torch.device) -> torch.Tensor:
        """The positions of all sites of a kind, or of one."""
        positions = torch.arange(self.counts[kind], device=device)
        return positions if position is None else positions[position : position + 1]

    def static_matrices(self, kind: str, positions: torch.Tensor) -> list[Matrices]:
        """The static A and B of some sites, if there is a static part."""
        if kind not in self.static_a:
            return []
        a, b = self.static_a[kind](positions).unsqueeze(1), self.static_b[kind](positions).unsqueeze(1)
        # The layer scales every part by alpha / r.
        b = b if self.static_r == self.r else b * (self.r / self.static_r)
        return [(a.unflatten(-1, (-1, self.static_r)), b.unflatten(-1, (self.static_r, -1)))]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        # PEFT loads with strict=False, under which a missing tensor would silently stay random.
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)
        own = [prefix + name for name, _ in chain(self.named_parameters(), self.named_buffers())]
        if any(name in state_dict for name in own):
            errors = lists[-1]
            errors += [f"{name} is missing." for name in own if name not in state_dict]
            found = {name: state_dict[name] for name in own if name in state_dict}
            errors += [f"{n} has NaN or infinity." for n, t in found.items() if not (t.is_meta or t.isfinite().all())]

    def forward(self, given: torch.Tensor) -> dict[str, list[Matrices]]:
        """A and B of every site, by kind: see `matrices`."""
        return {kind: self.matrices(given, kind) for kind in self.shapes}


class EmbeddingHyperNetwork(HyperNetwork):
    """One trunk; a learned embedding per site is added to its output; one linear head per kind and matrix."""

    def __init__(self, config: HyperLoraConfig, sites: dict[str, Site]):
        super().__init__(config, sites)
        hidden = config.hidden_dim
        self.trunk = nn.Sequential(nn.Linear(config.feature_dim, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.site_embedding = nn.ModuleDict({kind: nn.Embedding(n, hidden) for kind, n in self.counts.items()})
        self.head_a = nn.ModuleDict()
        self.head_b = nn.ModuleDict()
        for kind, (d_in, d_out) in self.shapes.items():
            self.head_a[kind] = nn.Linear(hidden, d_in * self.r, bias=False)
            self.head_b[kind] = nn.Linear(hidden, self.r * d_out, bias=False)
            # A starts with the size of LoRA's: trunk and embedding each have unit variance.
            nn.init.normal_(self.head_a[kind].weight, std=(6 * d_in) ** -0.5)
            if config.init_weights:
                nn.init.zeros_(self.head_b[kind].weight)
        self.reset_static(config.init_weights)

    def generate(self, features: torch.Tensor, kind: str, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        unit = nn.functional.normalize(features.to(self.trunk[0].weight.dtype), dim=-1) * features.shape[-1] ** 0.5
        # An entry of A or B sums as many weights as the latent is wide, and Adam moves each by the learning rate. As a
        # sum it diverges within the warm-up; as a mean it hardly moves beside the static part, and what differs between
        # questions is lost. The root of the width lets them learn at about half the learning rate of a plain LoRA.
        latent = self.trunk(unit) + self.site_embedding[kind](positions).unsqueeze(1)
        latent = latent * self.trunk[0].out_features ** -0.5
        return self.head_a[kind](latent), self.head_b[kind](latent)


class MlpHyperNetwork(HyperNetwork):
    """The paper's: ``W2 · relu(W1 [features ; layer index] + b1) + b2``, for A and for B of each role (section 3.2)."""

    def __init__(self, config: HyperLoraConfig, sites: dict[str, Site]):
        super().__init__(config, sites)
        width = config.feature_dim + 1
        self.down = nn.ModuleDict()
        self.up = nn.ModuleDict()
        for kind, (d_in, d_out) in self.shapes.items():
            self.down[kind] = _mlp(width, config.hidden_dim, d_in * self.r)
            self.up[kind] = _mlp(width, config.hidden_dim, self.r * d_out)
            if config.init_weights:
                nn.init.zeros_(self.up[kind][2].weight)
                nn.init.zeros_(self.up[kind][2].bias)
        self.layer_index_scale = config.layer_index_scale
        self.reset_static(config.init_weights)

    def generate(self, features: torch.Tensor, kind: str, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = 1.0 / self.counts[kind] if self.layer_index_scale is None else self.layer_index_scale
        features = features.to(self.down[kind][0].weight.dtype)
        index = (positions.to(features.dtype) * scale)[:, None, None].expand(-1, features.shape[0], 1)
        inputs = torch.cat([features.expand(len(positions), -1, -1), index], dim=-1)
        return self.down[kind](inputs), self.up[kind](inputs)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
