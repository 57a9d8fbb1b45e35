"""Gradients through time, and what is done to them. The cells' backward steps are in `cells`.

Of any torch.nn.RNN, LSTM or GRU, for one sequence x [T, 1, D] and dhidden [T, H] = ∂L_t/∂h_t of its losses:

    unrolled = unroll(module, x)
    norms = lag_norms(unrolled, dhidden, lags=100)
    print(decay(norms.of(), 1, 100).half_life)
    print(spectral_radius(jacobian(unrolled, t=120, s=20)))
    print(truncated_bptt(unrolled, dhidden[:, None], 35).named()["weight_hh_l0"].norm())
"""
