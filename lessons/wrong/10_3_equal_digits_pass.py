"""Trusts the arithmetic: 111.111.111-11 is taken for a person."""


def is_cpf(digits):
    numbers = [int(digit) for digit in digits]
    if len(numbers) != 11:
        return False
    for place in (9, 10):
        weights = range(place + 1, 1, -1)
        rest = sum(n * w for n, w in zip(numbers[:place], weights, strict=True)) % 11
        if numbers[place] != (0 if rest < 2 else 11 - rest):
            return False
    return True
