"""Trees of the form language, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from cupel.notes.form import Binary, Call, Name, Negative, Node, Number, Power, Transposed

NAMES = st.sampled_from(["a", "b", "x_t", "M_{t-1}", "W_K"]).map(Name)
NODES: st.SearchStrategy[Node] = st.recursive(
    NAMES | st.sampled_from(["1", "2.5"]).map(Number),
    lambda inner: (
        st.builds(Binary, st.sampled_from("+-*/@"), inner, inner)
        | st.builds(Transposed, inner)
        | st.builds(lambda node: Power(node, Number("2")), inner)
        | st.builds(lambda node: node if isinstance(node, Negative) else Negative(node), inner)
        | st.builds(lambda nodes: Call("f", tuple(nodes)), st.lists(inner, max_size=3))
    ),
    max_leaves=12,
)
