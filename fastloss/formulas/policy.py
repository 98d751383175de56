"""Policy losses: log-probabilities of actions, weighted by rewards or advantages."""

from ..spec.record import NONNEGATIVE, POSITIVE, Input, Interval, Parameter, arrays
from ..spec.special import share
from ..spec.vocabulary import exp, expm1, minimum, sigmoid, where

LOG_PROB = Input("*", "log-probability of what was done", grad=True)


@arrays(
    "points",
    inputs={
        "log_prob": LOG_PROB,
        "old_log_prob": Input("*", "log-probability of it under the policy that did it"),
        "advantage": Input("*", "how much better it was than expected"),
    },
    units="*",
    parameters={
        "clip": Parameter("how far the ratio of probabilities may leave 1, downwards", Interval(0.0, 1.0)),
        "clip_high": Parameter("the same upwards; None: as far", NONNEGATIVE, none=-1.0),
    },
    math="-min(rho A, clip(rho, 1 - clip, 1 + clip_high) A), rho = exp(log_prob - old_log_prob), A = advantage",
    differentiable=False,
    paper="Schulman et al. (2017), Proximal policy optimization, arXiv:1707.06347; clip_high: Yu et al. (2025), DAPO",
    example="np.array([-1.2, -0.5]), np.array([-1.0, -0.9]), np.array([1.0, -0.5])",
)
def ppo_clip(log_prob, old_log_prob, advantage, clip=0.2, clip_high=-1.0):
    """Clipped surrogate of proximal policy optimization.

    Where the ratio has left its range in the direction that the advantage favours, the gradient is 0.
    """
    high = where(clip_high < 0.0, clip, clip_high)
    ratio = exp(log_prob - old_log_prob)
    beyond = where(advantage > 0.0, ratio > 1.0 + high, (advantage < 0.0) & (ratio < 1.0 - clip))
    edge = where(advantage > 0.0, 1.0 + high, 1.0 - clip)
    value = -share(advantage, where(beyond, edge, ratio))
    return value, (where(beyond, 0.0, value),)


TOKENS = {
    "log_prob": Input("*", "log-probability of each token", grad=True),
    "old_log_prob": Input("*", "log-probability of it under the policy that wrote it"),
    "advantage": Input("*", "advantage of its answer within the group, for each token"),
    "ref_log_prob": Input("*", "log-probability of it under the reference model", optional=True),
}
BETA = Parameter("factor of the divergence from the reference model, kl", NONNEGATIVE)
KL = "kl = exp(d) - 1 - d, d = ref_log_prob - log_prob"
TOKEN_EXAMPLE = "np.array([-1.2, -0.5]), np.array([-1.0, -0.9]), np.array([1.0, -0.5])"


def penalised(value, slope, log_prob, ref_log_prob, beta):
    """Add beta times Schulman's third estimate of the divergence (k3), which is never negative."""
    d = ref_log_prob - log_prob
    rise = expm1(d)
    return value + share(beta, rise - d), (slope - share(beta, rise),)


@arrays(
    "points",
    inputs=TOKENS,
    units="*",
    parameters={
        "clip": Parameter("how far the ratio of probabilities may leave 1, downwards", Interval(0.0, 1.0)),
        "clip_high": Parameter("the same upwards; None: as far", NONNEGATIVE, none=-1.0),
        "beta": BETA,
    },
    math=f"-min(rho A, clip(rho, 1 - clip, 1 + clip_high) A) + beta kl, rho = exp(log_prob - old_log_prob), {KL}",
    differentiable=False,
    paper="Shao et al. (2024), DeepSeekMath, arXiv:2402.03300; clip_high: Yu et al. (2025), DAPO, arXiv:2503.14476",
    example=TOKEN_EXAMPLE,
)
def grpo(log_prob, old_log_prob, advantage, ref_log_prob, clip=0.2, clip_high=-1.0, beta=0.0):
    """Group relative policy optimization: the clipped surrogate of each token, and its divergence from a reference.

    As TRL's and Liger's. Their normalisations are weights: a mask for that over all tokens of a batch (bnpo), a mask
    over the lengths for that of each answer first (grpo), a mask with a divisor for a constant (dr_grpo).
    """
    value, (slope,) = ppo_clip(log_prob, old_log_prob, advantage, clip, clip_high)
    return penalised(value, slope, log_prob, ref_log_prob, beta)


@arrays(
    "points",
    inputs=TOKENS,
    units="*",
    parameters={"clip_high": Parameter("largest weight of a token", NONNEGATIVE), "beta": BETA},
    math=f"-min(rho, clip_high) A log_prob + beta kl, rho = exp(log_prob - old_log_prob) held constant, {KL}",
    paper="MiniMax (2025), MiniMax-M1, arXiv:2506.13585",
    example=TOKEN_EXAMPLE,
)
def cispo(log_prob, old_log_prob, advantage, ref_log_prob, clip_high=5.0, beta=0.0):
    """Clipped importance sampling policy optimization: a policy gradient whose weights are clipped, not its tokens.

    As TRL's loss of type cispo, whose epsilon_high is the weight itself.
    """
    weight = minimum(exp(log_prob - old_log_prob), clip_high)
    pull = share(advantage, weight)
    return penalised(-share(pull, log_prob), -pull, log_prob, ref_log_prob, beta)


@arrays(
    "points",
    inputs=TOKENS,
    units="*",
    parameters={
        "tau_pos": Parameter("sharpness of the gate of tokens of positive advantage", POSITIVE),
        "tau_neg": Parameter("sharpness of the gate of the others", POSITIVE),
        "beta": BETA,
    },
    math=f"-A (4 / tau) sigmoid(tau (rho - 1)) + beta kl, rho = exp(log_prob - old_log_prob), {KL}",
    paper="Gao et al. (2025), Soft adaptive policy optimization, arXiv:2511.20347",
    example=TOKEN_EXAMPLE,
)
def sapo(log_prob, old_log_prob, advantage, ref_log_prob, tau_pos=1.0, tau_neg=1.05, beta=0.0):
    """Soft adaptive policy optimization: ratios pass a smooth gate, in place of a clip.

    As TRL's loss of type sapo.
    """
    tau = where(advantage > 0.0, tau_pos, tau_neg)
    ratio = exp(log_prob - old_log_prob)
    x = tau * (ratio - 1.0)
    bend = sigmoid(x) * sigmoid(-x)
    value = -share(advantage, (4.0 / tau) * sigmoid(x))
    # A ratio without bound has passed the gate, whose slope is 0.
    slope = -share(advantage, where(bend == 0.0, 0.0, 4.0 * bend * ratio))
    return penalised(value, slope, log_prob, ref_log_prob, beta)


@arrays(
    "points",
    inputs={
        "log_prob": LOG_PROB,
        "reward": Input("*", "the reward for it"),
        "baseline": Input("*", "the reward that was expected; 0 where it is not given", optional=True),
        "entropy": Input("*", "entropy of the policy where it was done", grad=True, optional=True),
    },
    units="*",
    parameters={"entropy_weight": Parameter("factor of the entropy", NONNEGATIVE)},
    math="-(reward - baseline) log_prob - entropy_weight entropy",
    paper="Williams (1992), Simple statistical gradient-following algorithms; entropy: Mnih et al. (2016), "
    "arXiv:1602.01783",
    example="np.array([-1.2, -0.5]), np.array([1.0, 0.0]), 0.4",
)
def reinforce(log_prob, reward, baseline, entropy, entropy_weight=0.01):
    """Policy gradient with a baseline and a bonus for entropy.

    Reward and baseline are constants; the baseline may be one number for all. What has advantage 0 counts 0, even if
    it was impossible.
    """
    advantage = reward - baseline
    value = -share(advantage, log_prob) - share(entropy_weight, entropy)
    return value, (-advantage, -entropy_weight)


@arrays(
    "points",
    inputs={
        "log_prob": Input("*", "log-probability of the sampled sequence", grad=True),
        "reward": Input("*", "reward of the sampled sequence"),
        "baseline": Input("*", "reward of the sequence decoded greedily"),
    },
    units="*",
    math="-(reward - baseline) log_prob",
    paper="Rennie et al. (2017), Self-critical sequence training, arXiv:1612.00563",
    example="np.array([-20.0, -18.0]), np.array([0.8, 0.3]), np.array([0.5, 0.6])",
)
def self_critical(log_prob, reward, baseline):
    """Self-critical sequence training: policy gradient with the reward of greedy decoding as the baseline."""
    advantage = reward - baseline
    return -share(advantage, log_prob), (-advantage,)


@arrays(
    "sequences.minimum_risk",
    inputs={
        "log_prob": Input("* k", "log-probabilities of k candidates; -inf for one that is none", grad=True),
        "reward": Input("* k", "rewards of the candidates"),
    },
    units="*",
    options={"alpha": (0.005, Parameter("sharpness of the distribution over candidates", POSITIVE))},
    math="-sum over candidates of q r, q = softmax(alpha log_prob)",
    paper="Shen et al. (2016), Minimum risk training for neural machine translation, arXiv:1512.02433",
    example="np.array([[-10.0, -12.0, -11.0]]), np.array([[0.3, 0.6, 0.1]])",
)
def minimum_risk():
    """Minimum risk training: minus the expected reward of a list of sampled or n-best sequences.

    Rewards such as BLEU and ROUGE are in `fastloss.rewards`, log-probabilities of sequences come from
    `fastloss.sequence_log_probs`. Lists of fewer than k candidates are padded by a log-probability of -inf.
    """
