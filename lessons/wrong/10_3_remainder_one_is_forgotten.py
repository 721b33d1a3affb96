"""11 - 1 is ten, which is no digit: these people are not found."""


def is_cpf(digits):
    numbers = [int(digit) for digit in digits]
    if len(numbers) != 11 or len(set(numbers)) == 1:
        return False
    for place in (9, 10):
        weights = range(place + 1, 1, -1)
        rest = sum(n * w for n, w in zip(numbers[:place], weights, strict=True)) % 11
        if numbers[place] != (0 if rest == 0 else 11 - rest):
            return False
    return True
