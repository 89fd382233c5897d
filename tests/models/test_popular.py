import torch

ROWS = [[1, 1, 0], [1, 0, 0], [1, 1, 0]]


def test_the_score_is_the_number_of_users(drawn, solved):
    model = solved("popular", drawn(ROWS))
    assert model.score_all(torch.tensor([0, 2])).tolist() == [[3, 2, 0], [3, 2, 0]]
    assert model.score(torch.tensor([1, 1]), torch.tensor([1, 2])).tolist() == [2, 0]


def test_everybody_gets_the_same(drawn, solved, history):
    model = solved("popular", drawn(ROWS))
    assert model.fold_in(history([[0, 0, 1], [0, 0, 0]])).tolist() == [[3, 2, 0], [3, 2, 0]]
