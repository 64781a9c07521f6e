"""A small policy for control, 4-64-64, two heads: `act` on one observation, `update` (actor and critic) on 64."""

from ._common import Call, array, integers, set_weights


def make(torch, device):
    nn = torch.nn

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
            self.actor, self.critic = nn.Linear(64, 2), nn.Linear(64, 1)

        def forward(self, observations):
            hidden = self.body(observations)
            return self.actor(hidden), self.critic(hidden).squeeze(-1)

    def policy():
        return set_weights(torch, Policy(), device)

    acting, learning = policy(), policy()
    optimizer = torch.optim.Adam(learning.parameters(), lr=3e-4)
    seen = torch.from_numpy(array(4)).to(device)
    observations = torch.from_numpy(array(64, 4)).to(device)
    actions = torch.from_numpy(integers(2, 64, 1)).to(device)
    advantages = torch.from_numpy(array(64, seed=1)).to(device)
    returns = torch.from_numpy(array(64, seed=2)).to(device)

    def act(seen):
        with torch.no_grad():
            logits, value = acting(seen[None])
            chances = torch.softmax(logits, dim=-1)
        return chances, value.item(), chances.argmax().item()

    def update():
        logits, values = learning(observations)
        logs = torch.log_softmax(logits, dim=-1)
        chosen = logs.gather(1, actions).squeeze(1)
        entropy = -(logs.exp() * logs).sum(-1).mean()
        loss = -(chosen * advantages).mean() + 0.5 * (returns - values).pow(2).mean() - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning.parameters(), 0.5)
        optimizer.step()
        return loss.item()

    return {"act": Call(act, seen), "update": update}
