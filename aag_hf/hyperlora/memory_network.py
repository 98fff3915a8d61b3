"""The hypernetwork that reads documents: what it writes of one is an associative memory inside the weights."""

import torch
import torch.nn.functional as F
from torch import nn

from aag_hf.hyperlora.added_documents import with_added_documents
from aag_hf.hyperlora.config import HyperLoraConfig
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.hyperlora.hypernetwork import HyperNetwork, Matrices, Site

# Added to a squared norm: keys of almost no length stay small.
KEY_EPSILON = 0.05
# Parts that learn slower than the keys, so that one learning rate suits all.
SLOWER = 0.3
# The most tokens that look at each other when keys are made; longer documents are read in pieces of this many.
PIECE = 512


class MemoryHyperNetwork(HyperNetwork):
    """Writes each token of a document into the update: under the state before it, as the embedding of the token itself.

    A document's tokens t have states z ``(tokens, feature_dim)`` and embeddings e ``(tokens, d)`` of unit root mean
    square. y ``(tokens, hidden_dim)`` is the output of one self-attention block over ``[z_{t−1} ; z_t ; e_t]``, in
    pieces of 512 tokens. With ``n(x) = x / √(|x|² + 0.05)`` and trained W_k, W_x, b, w, w_x, b_g, V and U:

    - key ``k_t = n(W_k z_{t−1} + W_x y_t + b)``, of size r,
    - gate ``g_t = σ(w [z_{t−1} ; z_t] + w_x y_t + b_g)``,
    - value ``v_t = (I + V) e_t``,
    - memory ``M = Σ g_t k_t v_tᵀ / √(Σ g_t²)``, ``(r, d)``, one for each adapted layer or one for all.

    The update of a layer is ``x ↦ (x U) M``, a LoRA whose A is shared by all documents. At an answer's position the
    layer asks what came after a state like this one, and the model's head reads what it finds. U starts at zero.
    Inputs and outputs are scaled by what `calibrate` measured.

    Args:
        config: Its `feature_dim` is the width of states, `r` the size of keys, `hidden_dim` the block's width.
        sites: The adapted layers.

    Raises:
        ValueError: The layers' outputs differ in width: values are embeddings, which only layers that write into the
            residual stream can put there.
    """

    reads = "documents"

    def __init__(self, config: HyperLoraConfig, sites: dict[str, Site]):
        super().__init__(config, sites)
        widths = {site.out_features for site in sites.values()}
        if len(widths) > 1:
            raise ValueError(
                f"hypernetwork='memory' adapts layers that write into the residual stream, got layers of "
                f"{len(widths)} output widths, such as {min(sites)}: name down_proj (T5: wo) in target_modules."
            )
        self.width = widths.pop()
        self.order = {name: index for index, name in enumerate(sites)}
        self.memories = len(sites) if config.memory_per_layer else 1
        self.added_documents = config.added_documents
        d, hidden, r = config.feature_dim, config.hidden_dim, config.r
        self.block = DocumentBlock(2 * d + self.width, hidden)
        self.key = nn.Linear(d, self.memories * r)
        self.key_of_block = nn.Linear(hidden, self.memories * r, bias=False)
        self.gate = nn.Linear(2 * d, self.memories)
        self.gate_of_block = nn.Linear(hidden, self.memories, bias=False)
        self.value = nn.Linear(self.width, self.width, bias=False)
        nn.init.normal_(self.key.weight, std=d**-0.5)
        nn.init.normal_(self.gate.weight, std=0.01)
        for linear in (self.key_of_block, self.gate_of_block, self.value):
            nn.init.zeros_(linear.weight)
        for linear in (self.key, self.gate):
            nn.init.zeros_(linear.bias)
        self.query = nn.ModuleDict()
        for kind, (d_in, _) in self.shapes.items():
            self.query[kind] = nn.Embedding(self.counts[kind], d_in * r)
            if config.init_weights:
                nn.init.zeros_(self.query[kind].weight)
            self.register_buffer(f"input_rms_{kind}", torch.ones(self.counts[kind]))
            self.register_buffer(f"output_rms_{kind}", torch.ones(self.counts[kind]))
        self.reset_static(config.init_weights)

    def write(self, documents: DocumentStates) -> torch.Tensor:
        """The memories of some documents.

        Returns:
            ``(documents, memories, r, d)`` in the type of the network's weights.
        """
        before, e, y, gates = self._read(documents)
        keys = (self.key(before) + self.key_of_block(y)).unflatten(-1, (self.memories, self.r))
        keys = keys * torch.rsqrt(keys.square().sum(-1, keepdim=True) + KEY_EPSILON)
        values = e + SLOWER * self.value(e)
        return torch.einsum("btmr,btd->bmrd", keys * gates.unsqueeze(-1), values)

    def in_training(self, given: torch.Tensor | DocumentStates) -> torch.Tensor | DocumentStates:
        """Documents with others of their batch added, as often as `added_documents` of the configuration says."""
        if self.added_documents == 0 or not isinstance(given, DocumentStates):
            return given
        return with_added_documents(given, self.added_documents)

    def gates(self, documents: DocumentStates) -> torch.Tensor:
        """How strongly each token of some documents is written: ``g_t / √(Σ g_t²)``.

        Returns:
            ``(documents, tokens, memories)``; zeros where the documents' mask is false.
        """
        return self._read(documents)[-1]

    def _read(self, documents: DocumentStates) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each token the state before it, its embedding, what the block reads at it, and its gates."""
        dtype = self.key.weight.dtype
        mask = documents.mask
        assert mask is not None and documents.embeddings is not None
        z = documents.states.to(dtype) * mask.unsqueeze(-1)
        e = documents.embeddings.to(dtype)
        e = e * torch.rsqrt(e.square().mean(-1, keepdim=True).clamp(min=1e-12)) * mask.unsqueeze(-1)
        before = F.pad(z[:, :-1], (0, 0, 1, 0))
        y = self.block(torch.cat([before, z, e], dim=-1), mask)
        gates = torch.sigmoid(self.gate(torch.cat([before, z], dim=-1)) + self.gate_of_block(y)) * mask.unsqueeze(-1)
        return before, e, y, gates * torch.rsqrt(gates.square().sum(1, keepdim=True).clamp(min=1e-12))

    def matrices(self, given: torch.Tensor, kind: str, position: int | None = None) -> list[Matrices]:
        """As in the base class, of memories ``(batch, memories, r, d)``; A has a batch of 1, since all share it."""
        positions = self.positions(kind, position, given.device)
        input_rms = getattr(self, f"input_rms_{kind}")[positions][:, None, None, None]
        output_rms = getattr(self, f"output_rms_{kind}")[positions][:, None, None, None]
        a = self.query[kind](positions).unflatten(-1, (-1, self.r)).unsqueeze(1) * (SLOWER / input_rms)
        if self.memories > 1:
            of_kind = [self.order[name] for name, site in self.sites.items() if site.kind == kind]
            b = given[:, of_kind if position is None else [of_kind[position]]].transpose(0, 1)
        else:
            b = given.transpose(0, 1).expand(len(positions), -1, -1, -1)
        static = [(a_static / input_rms, b_static) for a_static, b_static in self.static_matrices(kind, positions)]
        return [(a, b * output_rms), *static]


class DocumentBlock(nn.Module):
    """One self-attention block over a document's tokens, which look at each other in pieces of `PIECE`.

    Args:
        width: Of a token's input.
        hidden: Of the block.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.heads = next(heads for heads in range(max(1, hidden // 32), 0, -1) if hidden % heads == 0)
        self.down = nn.Linear(width, hidden)
        self.place = nn.Embedding(PIECE, hidden)
        self.norm, self.norm_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        nn.init.normal_(self.place.weight, std=0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read ``(documents, tokens, width)`` where the mask is true: ``(documents, tokens, hidden)``."""
        documents, tokens = mask.shape
        piece = min(tokens, PIECE)
        short = -tokens % piece
        y = F.pad(self.down(x), (0, 0, 0, short)).reshape(-1, piece, self.down.out_features)
        seen = F.pad(mask, (0, short)).reshape(-1, 1, 1, piece)
        # A piece without tokens looks at all of its places, and nobody at it.
        seen = seen | ~seen.any(-1, keepdim=True)
        y = y + self.place(torch.arange(piece, device=x.device))
        q, k, v = self.qkv(self.norm(y)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y = y + self.out(attended.transpose(1, 2).flatten(2))
        y = y + self.mlp(self.norm_mlp(y))
        return y.reshape(documents, -1, y.shape[-1])[:, :tokens]
