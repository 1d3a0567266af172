"""The mathematics and pseudocode of optimizers and objectives: RGD, wave-native, QFE, coherence.

Each function tells what the given arms use, and describes what the code computes.
"""

from __future__ import annotations

from collections.abc import Iterator

from cupel.report.blocks import Block, Code, Heading, Maths, Paragraph
from cupel.report.readings import Arms, declared

# ---- optimizers ------------------------------------------------------------------------------


def rgd(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Resonant gradient descent (RGD)")
    yield Paragraph(
        "AdamW's update $u$ of each tensor with at least two dimensions is damped, in the Fourier "
        "domain, where weights $P$ and update do not both have energy:"
    )
    yield Maths(
        r"R = \sqrt{ \frac{|\hat{P}|}{\max|\hat{P}|} \cdot \frac{|\hat{u}|}{\max|\hat{u}|} + "
        r"\varepsilon }, \qquad \rho = \alpha R + 1 - \alpha, \qquad "
        r"P \leftarrow P - \eta\,\mathrm{Re}\,\mathcal{F}^{-1}(\rho\,\hat{u}) ,"
    )
    yield Paragraph(
        "with $\\alpha$ growing over the warm-up to the declared strength. Since $\\rho$ is at "
        "most about 1, the update also becomes shorter: an arm with AdamW at a lower learning "
        "rate is the control for that."
    )
    yield declared(arms, "strength", "warmup", "resonance_eps")
    yield Code(
        """\
for each parameter tensor P with gradient g:
    m ← β₁·m + (1 − β₁)·g;   v ← β₂·v + (1 − β₂)·g²
    u ← (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    if P has two dimensions or more:
        P ← P − η·decay·P
        α ← strength · min(1, t / warmup)
        P̂, û ← FFT2(P), FFT2(u)          # both flattened to two dimensions
        R ← √((|P̂| / max|P̂|) · (|û| / max|û|) + resonance_eps)
        u ← Re IFFT2(û · (α·R + 1 − α))
    P ← P − η·u
""",
    )


def wave_native(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Wave-native optimizer")
    yield Paragraph(
        "The gradient $G$ of a tensor with at least two dimensions, flattened to two, is projected "
        "in part onto the leading singular vectors $U$ and $V$ of its weights $P$, their modes, "
        "and moves a damped velocity $v$:"
    )
    yield Maths(
        r"G' = s\,U U^{\top} G\, V V^{\top} + (1 - s)\,G, \qquad "
        r"v \leftarrow (1 - \gamma)\,v - \eta\,G', \qquad P \leftarrow (1 - \eta\lambda)\,P + v ,"
    )
    yield Paragraph(
        "with $s$ the share that is projected, $\\gamma$ the damping and $\\lambda$ the decay. "
        "Vectors take $G' = G$ and have no decay."
    )
    yield declared(arms, "projected", "modes", "every", "damping", "weight_decay")
    yield Code(
        """\
for each parameter tensor P with gradient g:
    if P has two dimensions or more:      # flattened to two, R × C
        at the first update and every `every`-th after it:
            K ← max(1, round(modes · min(R, C)))
            U, V ← the K leading left and right singular vectors of P
        g ← projected · U Uᵀ g V Vᵀ + (1 − projected) · g
        P ← P − η·decay·P
    v ← (1 − damping)·v − η·g
    P ← P + v
""",
    )


# ---- objectives ------------------------------------------------------------------------------


def qfe(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Coherence along the sequence (QFE)")
    yield Paragraph(
        "Besides cross-entropy, the loss compares the phases that predicted probabilities $p$ and "
        "targets $y$ have in a Fourier transform along the sequence, where both have amplitude:"
    )
    yield Maths(
        r"L = L_{\mathrm{CE}} + \lambda\, \frac{\sum_k m_k\,A^{p}_k A^{y}_k "
        r"\left(1 - \cos(\varphi^{p}_k - \varphi^{y}_k)\right)}{\sum_k m_k}, \qquad "
        r"m_k = [A^{p}_k > \tau] \cdot [A^{y}_k > \tau] ,"
    )
    yield Paragraph(
        "with $\\lambda$ the weight and $\\tau$ the threshold. Vocabularies above the declared "
        "size are first projected by one fixed Gaussian matrix. Evaluations are cross-entropy "
        "alone, for every arm."
    )
    yield declared(arms, "weight", "temperature", "threshold", "projection")
    yield Code(
        """\
p ← softmax(logits / temperature);   y ← one-hot(targets)
if V > projection:  p, y ← p·G, y·G     # G: normal, variance 1/projection
F_p, F_y ← rFFT(p), rFFT(y)             # along the sequence
mask ← (|F_p| > τ) and (|F_y| > τ)
coherence ← Σ mask · (|F_p|·|F_y| − Re(F_p · conj F_y)) / Σ mask   # 0 if none
loss ← cross_entropy(logits, targets) + λ · coherence
""",
    )


def coherence(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Penalties on phases, norms and amplitudes (coherence)")
    yield Paragraph(
        "Three penalties are added to cross-entropy: the circular variance of each token's phases, "
        "the drift of the residual stream's norm over the layers, and the amplitudes' deviation "
        "from $1/h$:"
    )
    yield Maths(r"L = L_{\mathrm{CE}} + \lambda_1 P + \lambda_2 D + \lambda_3 H ,")
    yield Maths(
        r"P = 1 - \left\langle \left| \tfrac{1}{W} \sum_w e^{i\varphi_{t,w}} \right| "
        r"\right\rangle_t, \qquad "
        r"D = \left\langle \left( \frac{n_l}{n_0} - 1 \right)^2 \right\rangle_l,"
    )
    yield Maths(
        r"H = \left\langle \frac{(|A_{t,w,h}| - |A_{t,w,1}|/h)^2}{\sum_k A_{t,w,k}^2} "
        r"\right\rangle_{t,w,h} ,"
    )
    yield Paragraph(
        "with $\\langle\\cdot\\rangle$ the mean over tokens of the vocabulary, blocks, waves or "
        "harmonics, $n_l$ the mean length of the residual vectors after block $l$, and $n_0$ that "
        "before the first. (Of an embedding with frequencies from ranks the waves are its $d/2$ "
        "harmonics, and $H$ is 0.) Evaluations are cross-entropy alone, for every arm. The weights "
        "$\\lambda_1$ to $\\lambda_3$ are the settings in their order."
    )
    yield declared(arms, "phase_variance", "norm_drift", "harmonic_deviation")
