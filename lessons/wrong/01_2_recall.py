"""The share of the relevant passages that was found, wherever they stand."""


def ndcg(ranking, relevant, k=10):
    return len(set(ranking[:k]) & set(relevant)) / len(relevant) if relevant else 0.0
