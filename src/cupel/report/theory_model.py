"""The mathematics of a wave model: embeddings, wave ratio, attentions, activations.

Each function tells what the given arms use, and describes what the code computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cupel.report.blocks import Block, Heading, Maths, Paragraph
from cupel.report.readings import Arms, in_recipe, linear, parameters, readings

# ---- embeddings ------------------------------------------------------------------------------


def packet(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Wave packet embedding")
    yield Paragraph(
        "Each token $t$ has $W$ waves with a frequency $f_{t,w}$, a phase $\\varphi_{t,w}$ and an "
        "amplitude $A_{t,w,h}$ for each of $H$ harmonics; position enters through a frequency "
        "$p_w$ that all tokens share. At position $n$, from 0 on, the angle of a harmonic is"
    )
    yield Maths(r"\theta_{t,w,h}(n) = 2\pi h f_{t,w} + \varphi_{t,w} + n\,p_w ,")
    yield Paragraph("the packet is all sines and cosines beside each other,")
    yield Maths(
        r"s_t(n) = \left[\, A_{t,w,h}\sin\theta_{t,w,h}(n),\; A_{t,w,h}\cos\theta_{t,w,h}(n) "
        r"\,\right]_{w \le W,\, h \le H} \in \mathbb{R}^{2WH} ."
    )
    for reading in readings(arms, "bias"):
        packet, shift = (
            ("(M s_t(n) + b)", "and a shift") if reading["bias"] else ("M s_t(n)", "and no shift")
        )
        yield Paragraph(
            f"With {in_recipe(reading)} it is mixed with an ordinary embedding $E_t$ by the wave "
            f"ratio $r$, here the share of the waves, and the layer norm has a gain {shift}:"
        )
        yield Maths(rf"x_t(n) = \mathrm{{LayerNorm}}\!\left( r\,{packet} + (1 - r)\,E_t \right) .")
    yield Paragraph(
        "At the start $f_{t,w}$ is spread from 0.5 to 5 over the waves with noise of standard "
        "deviation 0.1, $\\varphi_{t,w}$ is uniform on $[0, 2\\pi)$, and normal are $A_{t,w,h}$ "
        "with standard deviation $0.5/\\sqrt{WH}$, $p_w$ with 0.1, $M$ and $E$ with 0.02."
    )
    yield from parameters(arms, ("ratio", "bias"), _packet_parameters)


def _packet_parameters(reading: Mapping[str, Any]) -> str:
    """Of frequencies and phases, amplitudes, M and b, p, E, ρ, and the layer norm."""
    bias, learned = reading["bias"], reading["ratio"] != "decay"
    terms = ("2VW", "VWH", "2WHd", "d" if bias else "", "W", "Vd", "1" if learned else "")
    return " + ".join([*filter(None, terms), "2d" if bias else "d"])


def physics_embedding(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Embedding with frequencies from ranks")
    yield Paragraph(
        "A token of rank $i$, 0 for the commonest of the training text, has mass $m_i = 1/(i+1)$ "
        "and base frequency $\\omega_i = 1/\\sqrt{m_i}$. Its harmonics $k$ have frequency "
        "$k\\omega_i$ and amplitude $1/k$; only their phases $\\varphi_{i,k}$ are learned, which "
        "are uniform on $[0, 2\\pi)$ at the start. At position $n$"
    )
    yield Maths(
        r"s_i(n) = \left[ \tfrac{1}{k}\sin(k\omega_i n + \varphi_{i,k}),\; "
        r"\tfrac{1}{k}\cos(k\omega_i n + \varphi_{i,k}) \right]_{k \le d/2}, "
        r"\qquad x_i(n) = (1 - r)\,s_i(n) + r\,E_i ,"
    )
    yield Paragraph(
        "with $E_i$ a row of an ordinary table. Here the ratio $r$ is the share of that lookup "
        "table, not of the waves, and no layer norm follows."
    )
    yield from parameters(arms, ("ratio",), _physics_parameters)


def _physics_parameters(reading: Mapping[str, Any]) -> str:
    """Of phases, the table and ρ."""
    return "Vd/2 + Vd" + (" + 1" if reading["ratio"] != "decay" else "")


def ratio(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Wave ratio")
    for reading in readings(arms, "ratio"):
        where = in_recipe(reading)
        if reading["ratio"] == "scheduled":
            yield Paragraph(
                f"With {where}, $r = \\sigma(\\rho)$ of a parameter $\\rho$ that begins at 0.5, "
                "and after the update $u$ of $T$, in which the optimizer moved $\\rho$ as well,"
            )
            yield Maths(
                r"r \leftarrow \mathrm{clip}\!\left(0.99\,r + 0.01\,(0.5 + 0.4\,u/T),\; "
                r"0.01,\; 0.99\right) ."
            )
        elif reading["ratio"] == "free":
            yield Paragraph(
                f"With {where}, $r = \\sigma(\\rho)$ of a parameter $\\rho$ that begins at 0.5 and "
                "is left to the optimizer."
            )
    for reading in readings([a for a in arms if a["ratio"] == "decay"], "ratio", "ratio_steps"):
        yield Paragraph(
            f"With {in_recipe(reading)}, $r$ is no parameter: it begins at 1, and after update $u$"
        )
        yield Maths(rf"r \leftarrow \max\!\left(0,\; 1 - u/{reading['ratio_steps']}\right) .")


def input_norm(arms: Arms) -> Iterator[Block]:
    normed = [arm for arm in arms if arm["input_norm"]]
    for reading in readings(normed, "input_norm", "bias"):
        yield Paragraph(
            f"With {in_recipe(reading)}, one more layer norm stands between embedding and first "
            f"block, of ${'2d' if reading['bias'] else 'd'}$ parameters."
        )


# ---- attention and activation ----------------------------------------------------------------


def interference(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Interference attention")
    yield Paragraph(
        "Queries and keys live in a space of $W$ waves for each head, with learned phase offsets "
        "that begin at 0; their score is the cosine of the angle between them, over a learned "
        "temperature $\\tau$, one a layer, that begins at $\\sqrt{W}$:"
    )
    yield Maths(r"q_i = W_q x_i + \varphi_q, \qquad k_j = W_k x_j + \varphi_k ,")
    yield Maths(
        r"\alpha_{ij} = \mathrm{softmax}_{j \le i}\!\left( \frac{1}{\tau}\, "
        r"\frac{q_i \cdot k_j}{\lVert q_i\rVert\,\lVert k_j\rVert} \right), "
        r"\qquad y_i = \sum_{j \le i} \alpha_{ij}\,W_v x_j ."
    )
    yield Paragraph(
        "So it is attention by cosine similarity. Scores lie within $\\pm 1/|\\tau|$ whatever the "
        "norms of queries and keys; there are as many of them as in ordinary attention. The heads' "
        "$y_i$ beside each other are mapped by $W_o$."
    )
    yield linear(arms, "$W_q$, $W_k$, $W_v$ and $W_o$")


_KERNELS = {
    "elu": r"\phi(u) = \mathrm{elu}(u) + 1",
    "sigmoid": r"\phi(u) = \frac{1}{1 + e^{-u}}",
    "exp": r"\phi(u) = e^{u}",
}
_NORMALISERS = {
    "sqrt": r"z_i = \sqrt{i + 1}",
    "sum": r"z_i = \sum_{j \le i} \phi(q_i) \cdot \phi(k_j)",
}
_FORMS = {
    "linear": "is taken from sums over the past, the right side, in time and memory linear in the "
    "number of positions; there are no weights for dropout to act on",
    "quadratic": "is taken from the whole matrix of weights, the left side, in time and memory "
    "that grow with the square of the number of positions",
}


def pure(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Attention by a kernel of sines")
    yield Paragraph(
        "Queries and keys come from sines of $W$ waves for each head, with frequencies $f$ and "
        "phases $\\varphi$ linear in the input $x$ at position $n$, brought to length $W^{1/4}$; "
        "a feature map $\\phi$, element by element, takes the place of the softmax:"
    )
    yield Maths(r"q_n = W^{1/4}\, \frac{\sin(f n + \varphi)}{\lVert \sin(f n + \varphi) \rVert} ,")
    yield Maths(
        r"y_i = \frac{1}{z_i} \sum_{j \le i} \left(\phi(q_i) \cdot \phi(k_j)\right) v_j "
        r"= \frac{1}{z_i}\, \phi(q_i) \sum_{j \le i} \phi(k_j)^{\top} v_j ,"
    )
    yield Paragraph("keys as queries with projections of their own. Positions count from 0.")
    for reading in readings(arms, "pure.kernel"):
        yield Paragraph(f"With {in_recipe(reading)} the feature map is")
        yield Maths(f"{_KERNELS[reading['pure.kernel']]} .")
    for reading in readings(arms, "pure.normaliser"):
        yield Paragraph(f"With {in_recipe(reading)} the divisor is")
        yield Maths(f"{_NORMALISERS[reading['pure.normaliser']]} .")
    for reading in readings(arms, "pure.form"):
        yield Paragraph(f"With {in_recipe(reading)}, $y_i$ {_FORMS[reading['pure.form']]}.")
    yield linear(arms, "The projections to $f$, $\\varphi$ and $v$, and that of the output,")


def intensity(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Attention by the intensity of two waves")
    yield Paragraph(
        "The input is projected to frequencies $\\omega$, phases $\\varphi$ and, through softplus, "
        "positive amplitudes $A$ of $W$ waves, for queries and for keys. The weight of a key is "
        "the intensity of both waves superposed, over the largest intensity there could be; there "
        "is no softmax, and weights need not sum to 1:"
    )
    yield Maths(
        r"I_{ij} = \sum_w \left[ A_q^2 + A_k^2 + 2 A_q A_k \cos(\Delta\omega\,\Delta t + "
        r"\Delta\varphi) \right] ,"
    )
    yield Maths(
        r"\alpha_{ij} = \frac{I_{ij}}{\sum_w (A_q + A_k)^2} \;\; (j \le i), "
        r"\qquad y_i = \sum_{j \le i} \alpha_{ij}\,v_j ,"
    )
    yield Paragraph("with $\\Delta$ the query's value less the key's, and $t$ the position.")
    yield linear(arms, "The projections of input and output")


_ACTIVATIONS = {
    "gelu_sine": r"a(u) = \mathrm{gelu}(u) + 0.1\,\sin u",
    "sine": r"a(u) = \sin u + 0.1\,u",
    "gelu": r"a(u) = \mathrm{gelu}(u)",
}


def activation(arms: Arms) -> Iterator[Block]:
    yield Heading(3, "Activation of the MLP")
    yield Paragraph(
        "Between its two linear layers, which are four times as wide inside as the model, each "
        "number $u$ becomes $a(u)$."
    )
    for reading in readings(arms, "mlp"):
        gelu = ", gelu by the error function" if "gelu" in reading["mlp"] else ""
        yield Paragraph(f"With {in_recipe(reading)}{gelu}:")
        yield Maths(f"{_ACTIVATIONS[reading['mlp']]} .")
