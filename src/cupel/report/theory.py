"""The mathematics and pseudocode that a report prints, each only when an arm uses it.

What an arm uses is read from its settings. The texts describe what the code computes; they praise
nothing, and what a mechanism is good for is left to the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cupel.report.blocks import Block, Code, Heading, Maths, Paragraph
from cupel.studies.outcome import dotted

_PACKET: tuple[Block, ...] = (
    Heading(3, "Wave packet embedding"),
    Paragraph(
        "Each token $t$ has $W$ waves with a frequency $f_{t,w}$, a phase $\\varphi_{t,w}$ and an "
        "amplitude $A_{t,w,h}$ for each of $H$ harmonics; position enters through a frequency "
        "$p_w$ that all tokens share. At position $n$ the angle of a harmonic is"
    ),
    Maths(r"\theta_{t,w,h}(n) = 2\pi h f_{t,w} + \varphi_{t,w} + n\,p_w ,"),
    Paragraph("the packet is all sines and cosines beside each other,"),
    Maths(
        r"s_t(n) = \left[\, A_{t,w,h}\sin\theta_{t,w,h}(n),\; A_{t,w,h}\cos\theta_{t,w,h}(n) "
        r"\,\right]_{w \le W,\, h \le H} \in \mathbb{R}^{2WH} ,"
    ),
    Paragraph("and it is mixed with an ordinary embedding $E_t$ by the wave ratio $r$:"),
    Maths(
        r"x_t(n) = \mathrm{LayerNorm}\!\left( r\,(M s_t(n) + b) + (1 - r)\,E_t \right), "
        r"\qquad r = \sigma(\rho) ."
    ),
    Paragraph(
        "At the start $f_{t,w}$ is spread from 0.5 to 5 over the waves with noise of standard "
        "deviation 0.1, $\\varphi_{t,w}$ is uniform on $[0, 2\\pi)$, $A_{t,w,h}$ is normal with "
        "standard deviation $0.5/\\sqrt{WH}$, and $\\rho = 0.5$. With a vocabulary of $V$ and "
        "width $d$ its parameters are"
    ),
    Maths(r"2VW + VWH + 2WHd + d + W + Vd + 1 + 2d ."),
)

_RATIO: dict[str, tuple[Block, ...]] = {
    "scheduled": (
        Paragraph("The wave ratio follows a schedule over $T$ updates, after each of which"),
        Maths(
            r"r \leftarrow \mathrm{clip}\!\left(0.99\,r + 0.01\,(0.5 + 0.4\,u/T),\; "
            r"0.01,\; 0.99\right) ,"
        ),
        Paragraph("with $u$ the number of the update; the optimizer's own change comes before it."),
    ),
    "decay": (
        Paragraph(
            "The wave ratio $r$ is no parameter here: it falls in a line from 1 to 0 over the "
            "first updates."
        ),
    ),
    "free": (Paragraph("The wave ratio is left to the optimizer."),),
}

_PHYSICS_EMBEDDING: tuple[Block, ...] = (
    Heading(3, "Embedding with frequencies from ranks"),
    Paragraph(
        "A token of rank $i$ has mass $m_i = 1/(i+1)$ and base frequency $\\omega_0 = "
        "1/\\sqrt{m_i}$. Its harmonics have frequency $n\\omega_0$ and amplitude $1/n$; only their "
        "phases $\\varphi_n$ are learned:"
    ),
    Maths(
        r"s_i(t) = \left[ \tfrac{1}{n}\sin(n\omega_0 t + \varphi_n),\; "
        r"\tfrac{1}{n}\cos(n\omega_0 t + \varphi_n) \right]_{n \le d/2}, "
        r"\qquad x_i(t) = (1 - r)\,s_i(t) + r\,E_i ,"
    ),
    Paragraph("with $E_i$ a row of an ordinary table, of which $r$ is the share."),
)

_INTERFERENCE: tuple[Block, ...] = (
    Heading(3, "Interference attention"),
    Paragraph(
        "Queries and keys live in a space of $W$ waves for each head, with learned phase offsets; "
        "their score is the cosine of the angle between them, over a learned temperature "
        "$\\tau$ that begins at $\\sqrt{W}$:"
    ),
    Maths(r"q_i = W_q x_i + \varphi_q, \qquad k_j = W_k x_j + \varphi_k ,"),
    Maths(
        r"\alpha_{ij} = \mathrm{softmax}_{j \le i}\!\left( \frac{1}{\tau}\, "
        r"\frac{q_i \cdot k_j}{\lVert q_i\rVert\,\lVert k_j\rVert} \right), "
        r"\qquad y_i = \sum_{j \le i} \alpha_{ij}\,W_v x_j ."
    ),
    Paragraph(
        "So it is attention by cosine similarity. Scores lie within $\\pm 1/\\tau$ whatever the "
        "norms of queries and keys; the cost in time and memory is that of ordinary attention."
    ),
)

_PURE: tuple[Block, ...] = (
    Heading(3, "Attention by a kernel of sines"),
    Paragraph(
        "Queries and keys are $\\sin(f n + \\varphi)$ with $f$ and $\\varphi$ projections of the "
        "input and $n$ the position, normalised in length. A feature map $\\phi$ takes the place "
        "of the softmax, so that sums over the past can be kept instead of a matrix:"
    ),
    Maths(
        r"y_i = \frac{1}{z_i} \sum_{j \le i} \left(\phi(q_i) \cdot \phi(k_j)\right) v_j "
        r"= \frac{1}{z_i}\, \phi(q_i) \sum_{j \le i} \phi(k_j)^{\top} v_j ."
    ),
)

_PHYSICS_ATTENTION: tuple[Block, ...] = (
    Heading(3, "Attention by the intensity of two waves"),
    Paragraph(
        "The input is projected to frequencies, phases and positive amplitudes $A$ of $W$ waves. "
        "The weight of a key is the intensity of both waves superposed, over the largest "
        "intensity there could be; there is no softmax:"
    ),
    Maths(
        r"I_{ij} = \sum_w \left[ A_q^2 + A_k^2 + 2 A_q A_k \cos(\Delta\omega\,\Delta t + "
        r"\Delta\varphi) \right], \qquad \alpha_{ij} = \frac{I_{ij}}{\sum_w (A_q + A_k)^2} "
        r"\;\; (j \le i) ."
    ),
)

_RGD: tuple[Block, ...] = (
    Heading(3, "Resonant gradient descent (RGD)"),
    Paragraph(
        "AdamW's update $u$ of each tensor with at least two dimensions is damped, in the Fourier "
        "domain, where weights $P$ and update do not both have energy:"
    ),
    Maths(
        r"R = \sqrt{ \frac{|\hat{P}|}{\max|\hat{P}|} \cdot \frac{|\hat{u}|}{\max|\hat{u}|} + "
        r"\varepsilon }, \qquad \rho = \alpha R + 1 - \alpha, \qquad "
        r"P \leftarrow P - \eta\,\mathrm{Re}\,\mathcal{F}^{-1}(\rho\,\hat{u}) ,"
    ),
    Paragraph(
        "with $\\alpha$ growing over the warm-up to the declared strength. Since $\\rho$ is at "
        "most about 1, the update also becomes shorter: an arm with AdamW at a lower learning "
        "rate is the control for that."
    ),
    Code(
        """\
for each parameter tensor P with gradient g:
    m ← β₁·m + (1 − β₁)·g;   v ← β₂·v + (1 − β₂)·g²
    u ← (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    if P has two dimensions or more:
        P ← P − η·decay·P
        α ← strength · min(1, t / warmup)
        P̂, û ← FFT2(P), FFT2(u)          # both flattened to two dimensions
        R ← √((|P̂| / max|P̂|) · (|û| / max|û|) + ε_R)
        u ← Re IFFT2(û · (α·R + 1 − α))
    P ← P − η·u
""",
    ),
)

_QFE: tuple[Block, ...] = (
    Heading(3, "Coherence along the sequence (QFE)"),
    Paragraph(
        "Besides cross-entropy, the loss compares the phases that predicted probabilities $p$ and "
        "targets $y$ have in a Fourier transform along the sequence, where both have amplitude:"
    ),
    Maths(
        r"L = L_{\mathrm{CE}} + \lambda\, \frac{\sum_k m_k\,A^{p}_k A^{y}_k "
        r"\left(1 - \cos(\varphi^{p}_k - \varphi^{y}_k)\right)}{\sum_k m_k}, \qquad "
        r"m_k = [A^{p}_k > \tau] \cdot [A^{y}_k > \tau] ."
    ),
    Paragraph(
        "Vocabularies above the declared size are first projected by one fixed Gaussian matrix. "
        "Evaluations are cross-entropy alone, for every arm."
    ),
    Code(
        """\
p ← softmax(logits / T);   y ← one-hot(targets)
if V > projection:  p, y ← p·G, y·G     # G: V × projection, normal
F_p, F_y ← rFFT(p), rFFT(y)             # along the sequence
mask ← (|F_p| > τ) and (|F_y| > τ)
coherence ← Σ mask · (|F_p|·|F_y| − Re(F_p · conj F_y)) / Σ mask   # 0 if none
loss ← cross_entropy(logits, targets) + λ · coherence
""",
    ),
)


def theory_of(configs: Iterable[Mapping[str, Any]]) -> list[Block]:
    """The sections that the settings of these arms call for, each once."""
    used: dict[str, tuple[Block, ...]] = {}
    for config in configs:
        for name, blocks in _used_by(config):
            used.setdefault(name, blocks)
    return [block for blocks in used.values() for block in blocks]


def _used_by(config: Mapping[str, Any]) -> list[tuple[str, tuple[Block, ...]]]:
    found: list[tuple[str, tuple[Block, ...]]] = []
    if dotted(config, "model.kind") == "wave":
        embedding, attention = dotted(config, "model.embedding"), dotted(config, "model.attention")
        found.append(
            ("packet", _PACKET) if embedding == "packet" else ("physics", _PHYSICS_EMBEDDING)
        )
        ratio = str(dotted(config, "model.ratio"))
        found.append((f"ratio {ratio}", _RATIO.get(ratio, ())))
        kinds = {"interference": _INTERFERENCE, "pure": _PURE, "physics": _PHYSICS_ATTENTION}
        found.append((f"attention {attention}", kinds.get(str(attention), ())))
    if dotted(config, "train.optimizer.kind") == "rgd":
        found.append(("rgd", _RGD))
    if dotted(config, "objective.kind") == "qfe":
        found.append(("qfe", _QFE))
    return found


def uses(configs: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether any arm uses `packet`, `physics`, `rgd`, `qfe` or `attention …`."""
    return any(name == used for config in configs for used, _ in _used_by(config))
