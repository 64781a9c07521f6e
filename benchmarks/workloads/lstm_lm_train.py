"""A training step of a word language model: two LSTM layers of 256, 2000 words, 16 sequences of 64, SGD, clipping."""

from ._common import integers, set_weights

VOCABULARY, WIDTH = 2000, 256
ITEMS = (16 * 64, "tokens")


def make(torch, device):
    nn = torch.nn

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
            self.head = nn.Linear(WIDTH, VOCABULARY)

        def forward(self, tokens):
            hidden, _ = self.lstm(self.embedding(tokens))
            return self.head(hidden)

    model = set_weights(torch, LanguageModel(), device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    tokens = torch.from_numpy(integers(VOCABULARY, 16, 65)).to(device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs).reshape(-1, VOCABULARY), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return loss.item(), norm

    return step
