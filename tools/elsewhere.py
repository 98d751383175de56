"""Expressions of other libraries with the value of a loss here: the data of docs/elsewhere.md, which tests execute."""

import re
from typing import NamedTuple

__all__ = ["LIBRARIES", "VARIABLES", "Library", "Same", "by_loss", "tables"]


class Same(NamedTuple):
    """Two expressions of one number."""

    ours: str
    """Call of fastloss, after `fl.`, or any expression with `fl.` in it."""
    theirs: str
    """Expression of another library."""
    factor: str = "1"
    """What fastloss's value is multiplied by to be the other: an expression, in which K is the number of classes."""


VARIABLES = {
    "z, t": "real predictions and targets (n,)",
    "mu, eta, n, a": "positive means, their logarithms, counts, positive amounts (n,)",
    "v": "variances (n,)",
    "p, x, b, s": "probabilities, their logits, targets 0 and 1, and targets -1 and 1 (n,)",
    "Z, P, lp": "logits (n, K), softmax(Z) and log(P)",
    "y, y2, Q, H": "labels of classes and of pairs (n,), class probabilities and one-hot labels (n, K)",
    "A, B, C": "embeddings (n, d)",
    "d1, d2": "distances (n,)",
    "W": "weights of the last layer (K, d)",
    "box, box2": "boxes (n, 4) as x1, y1, x2, y2",
    "M, Y": "probabilities of pixels and one-hot masks (n, classes, height, width)",
    "u1, u2": "samples (m,)",
    "h1, h2, cost": "histograms (m,) that sum to 1, and costs (m, m)",
    "L, words": "logits (n, steps, K) and tokens (n, steps)",
    "rel": "relevance of the items of one list (n,)",
}
"""Variables of the expressions: prediction first, as here."""

TORCH = (
    Same("mse(z, t)", "F.mse_loss(z, t)"),
    Same("mae(z, t)", "F.l1_loss(z, t)"),
    Same("huber(z, t, delta=2.0)", "F.huber_loss(z, t, delta=2.0)"),
    Same("smooth_l1(z, t, beta=0.5)", "F.smooth_l1_loss(z, t, beta=0.5)"),
    Same("l1(z)", "z.abs().sum()"),
    Same("poisson(eta, n)", "F.poisson_nll_loss(eta, n)"),
    Same("gaussian_nll((z, v), t)", "F.gaussian_nll_loss(z, t, v)"),
    Same("gaussian_nll((z, v), t, full=True)", "F.gaussian_nll_loss(z, t, v, full=True)"),
    Same("laplace_nll((z, v), t)", "-torch.distributions.Laplace(z, v).log_prob(t).mean()"),
    Same("student_t_nll((z, v), t, df=5.0)", "-torch.distributions.StudentT(5.0, z, v).log_prob(t).mean()"),
    Same("bce(p, b)", "F.binary_cross_entropy(p, b)"),
    Same("bce_with_logits(x, b)", "F.binary_cross_entropy_with_logits(x, b)"),
    Same(
        "bce_with_logits(x, b, pos_weight=3.0)",
        "F.binary_cross_entropy_with_logits(x, b, pos_weight=torch.tensor(3.0))",
    ),
    Same(
        "bce_with_logits(Z, H, pos_weight=v[:4])",
        "F.binary_cross_entropy_with_logits(Z, H, pos_weight=v[:4])",
    ),
    Same("hinge(x, b, labels='01')", "F.relu(1 - (2 * b - 1) * x).mean()"),
    Same("crammer_singer(Z, y, margin=0.0)", "(Z.max(1).values - Z.gather(1, y[:, None])[:, 0]).mean()"),
    Same("bce_with_logits(Z, H)", "F.multilabel_soft_margin_loss(Z, H)"),
    Same("logistic(x, s)", "F.soft_margin_loss(x, s)"),
    Same("hinge_embedding(d1, s)", "F.hinge_embedding_loss(d1, s)"),
    Same("cross_entropy(Z, y)", "F.cross_entropy(Z, y)"),
    Same("cross_entropy(Z, Q)", "F.cross_entropy(Z, Q)"),
    Same("cross_entropy(Z, y, label_smoothing=0.1)", "F.cross_entropy(Z, y, label_smoothing=0.1)"),
    Same("cross_entropy(Z, y, softcap=30.0)", "F.cross_entropy(30 * (Z / 30).tanh(), y)"),
    Same("cross_entropy(Z, y, class_weight=v[:4])", "F.cross_entropy(Z, y, weight=v[:4])"),
    Same("nll(lp, y)", "F.nll_loss(lp, y)"),
    Same("nll(lp, y, label_smoothing=0.1)", "F.cross_entropy(Z, y, label_smoothing=0.1)"),
    Same("multi_margin(Z, y)", "F.multi_margin_loss(Z, y)"),
    Same("multi_margin(Z, y, p=2.0, margin=0.5)", "F.multi_margin_loss(Z, y, p=2, margin=0.5)"),
    Same("kl_div(lp, Q)", "F.kl_div(lp, Q, reduction='batchmean')"),
    Same("kl_div(lp, Q)", "F.kl_div(lp, Q)", "1 / K"),
    Same("mse(A, B, reduction='batchmean')", "(A - B).square().sum() / len(A)"),
    Same(
        "distillation(Z, H, temperature=2.0)",
        "F.kl_div(F.log_softmax(Z / 2, 1), F.softmax(H / 2, 1), reduction='batchmean')",
        "1 / 4",
    ),
    Same("margin_ranking((z, t), s, margin=0.5)", "F.margin_ranking_loss(z, t, s, margin=0.5)"),
    Same("triplet(A, B, C)", "F.triplet_margin_loss(A, B, C, eps=0.0)"),
    Same(
        "triplet(A, B, C, distance='cosine')",
        "F.triplet_margin_with_distance_loss(A, B, C, distance_function=lambda x, y: 1 - F.cosine_similarity(x, y))",
    ),
    Same("triplet(A, B, C, swap=True)", "F.triplet_margin_loss(A, B, C, swap=True, eps=0.0)"),
    Same("cosine_embedding(A, B, s, margin=0.2)", "F.cosine_embedding_loss(A, B, s, margin=0.2)"),
    Same("cosine_distance(A, B)", "(1 - F.cosine_similarity(A, B)).mean()"),
    Same("linear_cross_entropy(A, W, y)", "F.cross_entropy(A @ W.T, y)"),
    Same("info_nce(A, B, temperature=0.1)", "F.cross_entropy(unit(A) @ unit(B).T / 0.1, torch.arange(len(A)))"),
    Same("sequence_cross_entropy(L, words)", "F.cross_entropy(L.flatten(0, 1), words.flatten())"),
    Same("perplexity(L, words)", "F.cross_entropy(L.flatten(0, 1), words.flatten()).exp()"),
    Same(
        "ctc(lp[:, None], [[1, 2]], reduction='sum')",
        "F.ctc_loss(lp[:, None], torch.tensor([[1, 2]]), [len(lp)], [2], reduction='sum')",
    ),
    Same("ctc(lp, [1, 2])", "F.ctc_loss(lp, torch.tensor([1, 2]), [len(lp)], [2], reduction='sum')"),
    Same(
        "ctc(lp[:, None], [[1, 2]])",
        "F.ctc_loss(lp[:, None], torch.tensor([[1, 2]]), [len(lp)], [2])",
        "1 / 2",
    ),
    Same("dice(M, Y, smooth_num=0.0, smooth_den=0.0)", "(1 - 2 * (M * Y).sum((2, 3)) / (M + Y).sum((2, 3))).mean()"),
    Same(
        "dice(M, M * M, overlap='product', smooth_num=0.0, smooth_den=0.0)",
        "(1 - 2 * (M * M * M).sum((2, 3)) / (M + M * M).sum((2, 3))).mean()",
    ),
    Same(
        "jaccard(M, Y, log=True, smooth_num=0.0, smooth_den=0.0)",
        "-((M * Y).sum((2, 3)) / (M + Y - M * Y).sum((2, 3))).log().mean()",
    ),
    Same("listnet(z, rel)", "F.cross_entropy(z, F.softmax(rel, 0))"),
    Same("l2(z)", "z.square().sum()", "2"),
    Same("brier(p, b)", "(p - b).square().mean()"),
    Same("exponential(x, s)", "(-s * x).exp().mean()"),
    Same("squared_hinge(x, s)", "F.relu(1 - s * x).square().mean()"),
    Same("gan_hinge(x, b)", "(b * F.relu(1 - x) + (1 - b) * F.relu(1 + x)).mean()"),
    Same("gan_bce(x, b)", "F.binary_cross_entropy_with_logits(x, b)"),
    Same("lsgan(x, b)", "F.mse_loss(x, b)", "2"),
    Same("wasserstein_generator(x)", "-x.mean()"),
    Same("triplet_distance((d1, d2))", "F.relu(d1 - d2 + 1).mean()"),
    Same(
        "contrastive_distance(d1, b, pos_margin=0.3)",
        "(b * F.relu(d1 - 0.3) ** 2 + (1 - b) * F.relu(1 - d1) ** 2).mean()",
    ),
    Same("contrastive_distance(d1, b)", "(b * d1**2 + (1 - b) * F.relu(1 - d1) ** 2).mean()"),
    Same(
        "contrastive(A, B, b)", "(b * (A - B).norm(dim=1) ** 2 + (1 - b) * F.relu(1 - (A - B).norm(dim=1)) ** 2).mean()"
    ),
    Same("gradient_penalty(A)", "10 * (A.norm(dim=1) - 1).square().mean()"),
    Same("n_pairs(A, B)", "F.cross_entropy(A @ B.T, torch.arange(len(A)))"),
    Same("tv_distance(lp, Q)", "(P - Q).abs().sum(1).mean()", "2"),
    Same("reverse_kl(lp, Q)", "F.kl_div(Q.log(), P, reduction='batchmean')"),
    Same("softmax_focal(Z, y)", "((1 - P.gather(1, y[:, None])) ** 2 * -lp.gather(1, y[:, None])).mean()"),
    Same("generalized_cross_entropy(Z, y)", "((1 - P.gather(1, y[:, None]) ** 0.7) / 0.7).mean()"),
    Same("mmd(A, B, unbiased=False)", "(kernel(A, A) + kernel(B, B) - 2 * kernel(A, B)).mean()"),
    Same("dpo(z, t, x, eta)", "-F.logsigmoid(0.1 * ((z - x) - (t - eta))).mean()"),
    Same("dpo(z, t, x, eta, variant='hinge')", "F.relu(1 - 0.1 * ((z - x) - (t - eta))).mean()"),
    Same(
        "dpo(z, t, x, eta, variant='apo_zero')",
        "(1 - F.sigmoid(0.1 * (z - x)) + F.sigmoid(0.1 * (t - eta))).mean()",
    ),
    Same(
        "dpo(z, t, x, eta, variant='aot')",
        "-F.logsigmoid(0.1 * ((z - t).sort().values - (x - eta).sort().values)).mean()",
    ),
    Same("ipo(z, t, x, eta)", "((z - x) - (t - eta) - 5).square().mean()"),
    Same("simpo(z, t)", "-F.logsigmoid(2 * (z - t) - 0.5).mean()"),
    Same("ppo_clip(z, t, x)", "-torch.min((z - t).exp() * x, (z - t).exp().clamp(0.8, 1.2) * x).mean()"),
    Same(
        "grpo(z, t, x, eta, beta=0.04)",
        "(-torch.min((z - t).exp() * x, (z - t).exp().clamp(0.8, 1.2) * x)"
        " + 0.04 * ((eta - z).exp() - (eta - z) - 1)).mean()",
    ),
    Same("cispo(z, t, x)", "-((z - t).exp().clamp(max=5) * x * z).mean()"),
    Same(
        "sapo(z, t, x)",
        "-torch.where(x > 0, 4 * F.sigmoid((z - t).exp() - 1), 4 / 1.05 * F.sigmoid(1.05 * ((z - t).exp() - 1)))"
        ".mul(x).mean()",
    ),
    Same("self_critical(z, a, v)", "-((a - v) * z).mean()"),
)

SKLEARN = (
    Same("mse(z, t)", "metrics.mean_squared_error(t, z)"),
    Same("mse(z, t) ** 0.5", "metrics.root_mean_squared_error(t, z)"),
    Same("mae(z, t)", "metrics.mean_absolute_error(t, z)"),
    Same("mape(z, t)", "metrics.mean_absolute_percentage_error(t, z)"),
    Same("msle(a, mu)", "metrics.mean_squared_log_error(mu, a)"),
    Same("quantile(z, t, q=0.9)", "metrics.mean_pinball_loss(t, z, alpha=0.9)"),
    Same("gamma(eta, a, full=True)", "metrics.mean_gamma_deviance(a, mu)", "2"),
    Same("poisson(eta, n) - fl.poisson(np.log(n), n)", "metrics.mean_poisson_deviance(n, mu)", "2"),
    Same("tweedie(eta, n) - fl.tweedie(np.log(n), n)", "metrics.mean_tweedie_deviance(n, mu, power=1.5)", "2"),
    Same("log_loss(p, b)", "metrics.log_loss(b, p)"),
    Same("nll(lp, y)", "metrics.log_loss(y, P)"),
    Same("cross_entropy(Z, y)", "metrics.log_loss(y, P)"),
    Same("brier(p, b)", "metrics.brier_score_loss(b, p)"),
    Same("hinge(x, s)", "metrics.hinge_loss(s, x)"),
    Same("crammer_singer(Z, y)", "metrics.hinge_loss(y, Z)"),
    Same("cosine_distance(A, B)", "metrics.pairwise.paired_cosine_distances(A, B).mean()"),
)

SCIPY = (
    Same("huber(z, t, delta=2.0)", "special.huber(2.0, z - t).mean()"),
    Same("pseudo_huber(z, t, delta=2.0)", "special.pseudo_huber(2.0, z - t).mean()"),
    Same("kl_div(lp, Q)", "special.rel_entr(Q, P).sum(1).mean()"),
    Same("js_div(lp, Q)", "(spatial.distance.jensenshannon(P, Q, axis=1) ** 2).mean()"),
    Same("poisson(eta, n, full=True)", "-stats.poisson.logpmf(n, mu).mean()"),
    Same("gaussian_nll((z, v), t, full=True)", "-stats.norm.logpdf(t, z, np.sqrt(v)).mean()"),
    Same("laplace_nll((z, v), t)", "-stats.laplace.logpdf(t, z, v).mean()"),
    Same("student_t_nll((z, v), t, df=5.0)", "-stats.t.logpdf(t, 5.0, z, v).mean()"),
    Same("negative_binomial_nll((mu, v), n)", "-stats.nbinom.logpmf(n, v, v / (v + mu)).mean()"),
    Same("wasserstein_samples(u1, u2)", "stats.wasserstein_distance(u1, u2)"),
    Same("energy_distance(u1, u2)", "stats.energy_distance(u1, u2)"),
    Same(
        "cauchy(z, t, c=0.5**0.5, reduction='sum')",
        "optimize.least_squares(lambda w: z - t, [0.0], loss='cauchy', max_nfev=1).cost",
        "1 / 2",
    ),
    Same(
        "charbonnier(z, t, reduction='sum')",
        "optimize.least_squares(lambda w: z - t, [0.0], loss='soft_l1', max_nfev=1).cost",
    ),
    Same("cross_entropy(Z, y)", "-special.log_softmax(Z, axis=1)[np.arange(len(y)), y].mean()"),
)

POT = (
    Same("wasserstein_samples(u1, u2)", "ot.wasserstein_1d(u1, u2)"),
    Same("wasserstein_samples(u1, u2, p=2.0)", "ot.wasserstein_1d(u1, u2, p=2)"),
    Same(
        "wasserstein_1d(h1[None], h2[None])", "ot.emd2_1d(np.arange(5.0), np.arange(5.0), h1, h2, metric='minkowski')"
    ),
    Same("wasserstein_1d(h1[None], h2[None], p=2.0)", "ot.emd2_1d(np.arange(5.0), np.arange(5.0), h1, h2)"),
    Same("sinkhorn(h1, h2, cost)", "ot.solve(cost, h1, h2, reg=0.1, reg_type='KL', tol=1e-12).value"),
    Same(
        "sinkhorn.value_and_grad(h1, h2, cost, tolerance=1e-12)[1][2][0, 1]",
        "ot.solve(cost, h1, h2, reg=0.1, reg_type='KL', tol=1e-12).plan[0, 1]",
    ),
    Same(
        "sliced_wasserstein(A, B, projections=np.eye(A.shape[1]))",
        "ot.sliced_wasserstein_distance(A, B, projections=np.eye(A.shape[1]))",
    ),
    Same(
        "sinkhorn_points(A, B, epsilon=2.0)",
        "ot.solve_sample(A, B, reg=2.0, reg_type='KL', metric='sqeuclidean', tol=1e-12).value",
    ),
)

STATSMODELS = (
    Same("huber(z, t, delta=2.0)", "norms.HuberT(t=2.0).rho(z - t).mean()"),
    Same("tukey(z, t)", "norms.TukeyBiweight(c=4.685).rho(z - t).mean()"),
    Same("poisson(eta, n) - fl.poisson(np.log(n), n)", "families.Poisson().deviance(n, mu)", "2 * len(n)"),
    Same("gamma(eta, a, full=True)", "families.Gamma().deviance(a, mu)", "2 * len(a)"),
)

CATBOOST = (
    Same("mae(z, t)", "metric(t, z, 'MAE')"),
    Same("mse(z, t) ** 0.5", "metric(t, z, 'RMSE')"),
    Same("huber(z, t, delta=2.0)", "metric(t, z, 'Huber:delta=2')"),
    Same("quantile(z, t, q=0.9)", "metric(t, z, 'Quantile:alpha=0.9')"),
    Same("expectile(z, t, q=0.9)", "metric(t, z, 'Expectile:alpha=0.9')"),
    Same("smape(a, mu)", "metric(mu, a, 'SMAPE')", "100"),
    Same("msle(a, mu)", "metric(mu, a, 'MSLE')"),
    Same("poisson(eta, n)", "metric(n, eta, 'Poisson')"),
    Same("tweedie(eta, n) + np.mean(2 + 2 * n)", "metric(n, eta, 'Tweedie:variance_power=1.5')"),
    Same("bce_with_logits(x, b)", "metric(b, x, 'Logloss')"),
    Same("bce_with_logits(x, p)", "metric(p, x, 'CrossEntropy')"),
    Same("brier(p, b)", "metric(b, x, 'BrierScore')"),
    Same("hinge(x, s)", "metric(b, x, 'HingeLoss')"),
    Same("focal(x, b)", "metric(b, x, 'Focal:focal_alpha=0.25;focal_gamma=2')"),
    Same("cross_entropy(Z, y)", "metric(y, Z, 'MultiClass')"),
    Same("crammer_singer(Z, y)", "metric(y, Z, 'HingeLoss')"),
)

XGBOOST = (
    Same("mse(z, t)", "reg:squarederror", "1 / 2"),
    Same("pseudo_huber(z, t)", "reg:pseudohubererror"),
    Same("bce_with_logits(z, b)", "binary:logistic"),
    Same("hinge(z, s)", "binary:hinge"),
    Same("poisson(z, n)", "count:poisson"),
    Same("gamma(z, a)", "reg:gamma"),
    Same("tweedie(z, n)", "reg:tweedie"),
    Same("msle(a, mu)", "reg:squaredlogerror", "1 / 2"),
)

LIGHTGBM = (
    Same("mse(z, t)", "regression", "1 / 2"),
    Same("huber(z, t, delta=0.9)", "huber"),
    Same("fair(z, t)", "fair"),
    Same("bce_with_logits(z, b)", "binary"),
    Same("bce_with_logits(z, p)", "cross_entropy"),
    Same("poisson(z, n)", "poisson"),
    Same("gamma(z, a)", "gamma"),
    Same("tweedie(z, n)", "tweedie"),
)

OPTAX = (
    Same("mse(z, t)", "optax.squared_error(z, t).mean()"),
    Same("mse(z, t)", "optax.l2_loss(z, t).mean()", "1 / 2"),
    Same("huber(z, t, delta=2.0)", "optax.huber_loss(z, t, delta=2.0).mean()"),
    Same("log_cosh(z, t)", "optax.log_cosh(z, t).mean()"),
    Same("bce_with_logits(x, b)", "optax.sigmoid_binary_cross_entropy(x, b).mean()"),
    Same("focal(x, b, alpha=None)", "optax.sigmoid_focal_loss(x, b).mean()"),
    Same("focal(x, b)", "optax.sigmoid_focal_loss(x, b, alpha=0.25).mean()"),
    Same("hinge(x, s)", "optax.hinge_loss(x, s).mean()"),
    Same("perceptron(x, s)", "optax.losses.perceptron_loss(x, s).mean()"),
    Same("cross_entropy(Z, Q)", "optax.softmax_cross_entropy(Z, Q).mean()"),
    Same("cross_entropy(Z, y)", "optax.softmax_cross_entropy_with_integer_labels(Z, y).mean()"),
    Same("poly1_cross_entropy(Z, Q, epsilon=2.0)", "optax.losses.poly_loss_cross_entropy(Z, Q, epsilon=2.0).mean()"),
    Same("crammer_singer(Z, y)", "optax.losses.multiclass_hinge_loss(Z, y).mean()"),
    Same("sparsemax_loss(Z, y)", "optax.losses.multiclass_sparsemax_loss(Z, y).mean()"),
    Same("kl_div(lp, Q)", "optax.losses.kl_divergence(lp, Q).mean()"),
    Same("cosine_distance(A, B)", "optax.cosine_distance(A, B).mean()"),
    Same("triplet(A, B, C)", "optax.losses.triplet_margin_loss(A, B, C, eps=0.0).mean()"),
    Same("softmax_ranking(z, rel)", "optax.losses.ranking_softmax_loss(z, rel)", "rel.sum()"),
)

KERAS = (
    Same("mse(z, t)", "losses.mean_squared_error(t, z)"),
    Same("mae(z, t)", "losses.mean_absolute_error(t, z)"),
    Same("mape(z, t)", "losses.mean_absolute_percentage_error(t, z)", "100"),
    Same("msle(a, mu)", "losses.mean_squared_logarithmic_error(mu, a)"),
    Same("huber(z, t, delta=2.0)", "losses.huber(t, z, delta=2.0)"),
    Same("log_cosh(z, t)", "losses.log_cosh(t, z)"),
    Same("poisson(eta, n)", "losses.poisson(n, mu)"),
    Same("bce(p, b)", "losses.binary_crossentropy(b, p)"),
    Same("bce_with_logits(x, b)", "losses.binary_crossentropy(b, x, from_logits=True)"),
    Same("focal(x, b, alpha=None)", "losses.binary_focal_crossentropy(b, x, from_logits=True)"),
    Same(
        "focal(x, b)",
        "losses.binary_focal_crossentropy(b, x, from_logits=True, apply_class_balancing=True)",
    ),
    Same("hinge(x, s)", "losses.hinge(s, x)"),
    Same("squared_hinge(x, s)", "losses.squared_hinge(s, x)"),
    Same("nll(lp, y)", "losses.categorical_crossentropy(H, P).mean()"),
    Same("cross_entropy(Z, Q)", "losses.categorical_crossentropy(Q, Z, from_logits=True).mean()"),
    Same("cross_entropy(Z, y)", "losses.sparse_categorical_crossentropy(y, Z, from_logits=True).mean()"),
    Same(
        "softmax_focal(Z, Q)",
        "losses.categorical_focal_crossentropy(Q, Z, alpha=1.0, from_logits=True).mean()",
    ),
    Same("kl_div(lp, Q)", "losses.kl_divergence(Q, P).mean()"),
    Same("cosine_distance(A, B) - 1", "losses.cosine_similarity(B, A).mean()"),
)

MONAI = (
    Same("dice(M, Y)", "monai.losses.DiceLoss()(M, Y)"),
    Same("dice(M, Y, squared=True)", "monai.losses.DiceLoss(squared_pred=True)(M, Y)"),
    Same("dice(M, Y, per='batch')", "monai.losses.DiceLoss(batch=True)(M, Y)"),
    Same("dice(M, Y, include_background=False)", "monai.losses.DiceLoss(include_background=False)(M, Y)"),
    Same("jaccard(M, Y)", "monai.losses.DiceLoss(jaccard=True)(M, Y)"),
    Same("generalized_dice(M, Y)", "monai.losses.GeneralizedDiceLoss()(M, Y)"),
    Same("tversky(M, Y, alpha=0.3, beta=0.7)", "monai.losses.TverskyLoss(alpha=0.3, beta=0.7)(M, Y)"),
    Same("focal(M, Y, alpha=None)", "monai.losses.FocalLoss()(M, Y)"),
    Same("focal(M, Y)", "monai.losses.FocalLoss(alpha=0.25)(M, Y)"),
    Same("giou(box, box2)", "monai.losses.giou_loss.BoxGIoULoss()(box, box2)"),
    Same("ntxent(A, B, temperature=0.5)", "monai.losses.ContrastiveLoss(temperature=0.5)(A, B)"),
)

METRIC_LEARNING = (
    Same("ntxent(A, B)", "losses.SelfSupervisedLoss(losses.NTXentLoss(0.07))(A, B)"),
    Same("supcon(A, y2, temperature=0.1)", "losses.SupConLoss(0.1)(A, y2)"),
    Same("circle(A, y2, m=0.4, gamma=80.0)", "losses.CircleLoss(m=0.4, gamma=80)(A, y2)"),
    Same("vicreg(A, B)", "losses.VICRegLoss()(A, ref_emb=B)"),
)


class Library(NamedTuple):
    """Library with its expressions."""

    name: str
    names: str
    """Names that the library's expressions use, with the imports they stand for."""
    same: tuple[Same, ...]
    module: str
    """Module to import to see whether the library is installed."""
    checked: str = ""
    """Version that the expressions were executed with by hand; empty for those that the tests execute."""
    tolerance: float = 1e-9
    """Relative difference that its constants and its precision make."""


OBJECTIVES = "objectives; the factor is that of the gradient of the sum by the raw prediction"
LIBRARIES = (
    Library("PyTorch", "`F = torch.nn.functional`, `unit = F.normalize`, `kernel` a Gaussian kernel", TORCH, "torch"),
    Library("scikit-learn", "`metrics = sklearn.metrics`", SKLEARN, "sklearn"),
    Library("SciPy", "modules of `scipy`", SCIPY, "scipy"),
    Library("statsmodels", "`norms` of robust, `families` of genmod", STATSMODELS, "statsmodels"),
    Library("POT", "`ot`", POT, "ot", tolerance=1e-6),
    Library("XGBoost", OBJECTIVES, XGBOOST, "xgboost", tolerance=1e-3),
    Library("LightGBM", OBJECTIVES, LIGHTGBM, "lightgbm", tolerance=1e-3),
    Library("CatBoost", "`metric = catboost.utils.eval_metric`, of raw predictions", CATBOOST, "catboost", "", 1e-5),
    Library("optax", "`optax`", OPTAX, "optax", "0.2.8"),
    Library("Keras", "`losses = keras.losses`", KERAS, "keras", "3.15.1", 1e-5),
    Library("MONAI", "`monai`", MONAI, "monai", "1.6.1", 2e-5),
    Library(
        *("pytorch-metric-learning", "`losses = pytorch_metric_learning.losses`", METRIC_LEARNING),
        *("pytorch_metric_learning", "2.9.0", 1e-6),
    ),
)


def tables() -> str:
    """Return the variables and a table for each library, for docs/elsewhere.md."""
    lines = ["| Variable | Content |", "|---|---|"]
    lines += [f"| `{names}` | {content} |" for names, content in VARIABLES.items()]
    for library in LIBRARIES:
        lines += ["", f"## {library.name}", "", f"Names: {library.names}."]
        if library.checked:
            lines += ["", f"Executed by hand with {library.name} {library.checked}, not by the tests."]
        lines += ["", "| fastloss | Factor | Elsewhere |", "|---|---|---|"]
        lines += [f"| `fl.{s.ours}` | {_factor(s)} | {_code(s.theirs)} |" for s in library.same]
    lines += ["", "## By loss", "", "| Loss | Libraries |", "|---|---|"]
    found = by_loss()
    lines += [f"| `{loss}` | {', '.join(f'[{x}](#{x.lower()})' for x in found[loss])} |" for loss in sorted(found)]
    return "\n".join(lines)


def by_loss() -> dict[str, list[str]]:
    """Return the libraries that have an expression of each loss."""
    found: dict[str, list[str]] = {}
    for library in LIBRARIES:
        for same in library.same:
            for loss in re.findall(r"(?:^|fl\.)([a-z]\w+)\(", same.ours):
                if library.name not in found.setdefault(loss, []):
                    found[loss].append(library.name)
    return found


def _factor(same: Same) -> str:
    return "" if same.factor == "1" else f"`{same.factor}`"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
