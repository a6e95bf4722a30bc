"""Matrix products."""

from __future__ import annotations

from cases.row import case, graph

PRODUCTS = [
    *(
        case("Gemm", a, b, "5", transA=trans_a, transB=trans_b)
        for trans_a, a in enumerate(("N 4", "4 N"))
        for trans_b, b in enumerate(("4 5", "5 4"))
    ),
    *(
        case("Gemm", a, b, "N 5", transA=trans_a, transB=trans_b, alpha=0.5, beta=-1.5)
        for trans_a, a in enumerate(("N 4", "4 N"))
        for trans_b, b in enumerate(("4 5", "5 4"))
    ),
    case("Gemm", "N 4", "4 5"),
    case("Gemm", "N 4", "4 5", "", beta=0.25),
    case("Gemm", "N 4", "4 5", "N 1", beta=0.25),
    case("Gemm", "N 4", "4 5", "1 5"),
    case("Gemm", "2 1", "1 3", "2 1", alpha=2.0),
    graph("Gemm", lambda op, x: op.Gemm(x, x, transB=1), "N 4"),
    case("MatMul", "N 4", "4 5"),
    case("MatMul", "2 N 3 4", "2 N 4 5"),
    case("MatMul", "N 3 4", "4 5"),
    case("MatMul", "3 4", "N 4 2"),
    case("MatMul", "N 1 3 4", "2 4 5"),
    case("MatMul", "1 3 4", "N 2 4 1"),
    case("MatMul", "4", "4"),
    case("MatMul", "4", "4 5"),
    case("MatMul", "4", "N 2 4 5"),
    case("MatMul", "N 4", "4"),
    case("MatMul", "2 N 3 4", "4"),
    graph("MatMul", lambda op, x: op.MatMul(x, x), "3 3"),
    *(
        case("Einsum", *operands, equation=equation)
        for equation, *operands in [
            ("nc,dc->nd", "N 3", "2 3"),
            ("nchw,dc->ndhw", "N 3 H W", "2 3"),
            ("bij, bjk -> bik", "N 2 3", "N 3 2"),
            ("i,j->ij", "2", "3"),
            ("i,i", "3", "3"),
            ("ij,kj", "2 3", "N 3"),
            ("ij->ji", "N 3"),
            ("ij->j", "N 3"),
            ("ij->", "N 3"),
            ("ba", "2 3"),
            ("ij,k->ik", "N 3", "2"),
            ("ij,jk,kl->il", "N 2", "2 3", "3 2"),
            ("...ij,...jk->...ik", "N 2 3", "N 3 2"),
            ("...ij,...jk", "N 1 2 3", "1 2 3 2"),
            ("...i,ij->...j", "N 2 3", "3 2"),
            ("i...->...", "N 2 3"),
            ("...->...", "N 2"),
            (",ij->ij", "", "N 2"),
            ("...->...", "2 3"),
            ("ii->i", "3 3"),
            ("ii", "3 3"),
            ("ii->", "4 4"),
            ("nii->ni", "N 3 3"),
            ("...ii->...i", "2 N 3 3"),
            ("...ii", "N 2 2"),
            ("iijj->ij", "2 2 3 3"),
            ("iii->i", "3 3 3"),
            ("iji,jk->ik", "3 N 3", "N 2"),
            ("ii,ii->i", "3 3", "3 3"),
            ("ii,jj->ij", "2 2", "3 3"),
            ("hh,h->h", "H H", "H"),
            ("bhh->b", "N H H"),
        ]
    ),
]
